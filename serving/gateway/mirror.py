"""Repeats answered requests on the other of two versions and compares: does the candidate say the same?

Off the request's path: a bounded queue and a few workers. What does not fit is dropped and counted,
so mirroring can slow nobody down and cannot run out of memory. What becomes of a repeated request is nobody's
ending: users wait for none of it.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import FlightpathError
from serving.gateway.answers import agreement, predicted_classes
from serving.gateway.lateness import Kind, Lateness
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.pairing import Pairing
from serving.gateway.upstream import Upstream
from serving.routes import Backend, Route


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorLimits:
    max_queued: int = 256
    """Repeats that wait; more are dropped and counted."""
    max_bytes: int = 32 * 1024 * 1024
    """Of queued requests and answers together."""
    workers: int = 4
    """Mirrored requests at a time: a bound on what mirroring adds to the other backend's load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorJob:
    """A request that one of the two has answered."""

    model: str
    candidate: str
    target: Backend
    by_candidate: bool
    """Whether the candidate has answered and the live version is to repeat, or the other way round."""
    request: bytes
    answer: bytes | Sequence[int]
    """The classes that were predicted, the body of an answer that was too large to read at once."""
    headers: Mapping[str, str]
    nonce: bytes | None
    """Of the answer's feedback token."""

    @property
    def size_bytes(self) -> int:
        return len(self.request) + len(self.answer)


def choose_target(route: Route, backend: Backend, draw: Callable[[], float] = random.random) -> Backend | None:
    """Who repeats what this backend has answered, if anybody."""
    mirror = route.mirror
    if mirror is None:
        return None
    if backend.id == mirror.candidate:
        return route.backend(mirror.live) if draw() < mirror.candidate_share else None
    if backend.id == mirror.live:
        return route.backend(mirror.candidate) if draw() < mirror.live_share else None
    return None


class MirrorQueue:
    """The queue and its workers. Use `async with`."""

    def __init__(
        self,
        upstream: Upstream,
        ledger: Ledger,
        metrics: GatewayMetrics,
        lateness: Lateness,
        pairing: Pairing,
        limits: MirrorLimits,
    ) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._metrics = metrics
        self._lateness = lateness
        self._pairing = pairing
        self._limits = limits
        self._queue: asyncio.Queue[MirrorJob] = asyncio.Queue(maxsize=limits.max_queued)
        self._queued_bytes = 0
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "MirrorQueue":
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._limits.workers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def submit(self, job: MirrorJob) -> bool:
        """Queue a comparison; False when it was dropped."""
        if self._queue.full() or self._queued_bytes + job.size_bytes > self._limits.max_bytes:
            self._metrics.count_mirrored(job.model, "dropped")
            return False
        self._queue.put_nowait(job)
        self._queued_bytes += job.size_bytes
        if job.nonce is not None:
            self._pairing.expect(job.nonce, job.model, job.candidate)
        return True

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            self._queued_bytes -= job.size_bytes
            self._metrics.count_mirrored(job.model, await self._compare(job))

    async def _compare(self, job: MirrorJob) -> str:
        """`agreed`, `differed`, or `failed` when there was nothing to compare."""
        timeout_s = self._lateness.of(job.model, Kind.INFER).bound_s(remote=job.target.remote)
        try:
            repeated = await self._upstream.infer(job.target, job.model, job.request, job.headers, timeout_s=timeout_s)
            if repeated.status != 200:
                return self._not_compared(job)
            ours = predicted_classes(job.answer) if isinstance(job.answer, bytes) else list(job.answer)
            theirs = repeated.classes if repeated.classes is not None else predicted_classes(repeated.body)
        except FlightpathError:
            return self._not_compared(job)
        share = agreement(ours, theirs)
        self._ledger.counters(job.model, job.candidate).compared(share)
        if job.nonce is not None:
            self._pairing.compared(job.nonce, *((ours, theirs) if job.by_candidate else (theirs, ours)))
        return "agreed" if share == 1.0 else "differed"

    def _not_compared(self, job: MirrorJob) -> str:
        if job.nonce is not None:
            self._pairing.forget(job.nonce)
        return "failed"
