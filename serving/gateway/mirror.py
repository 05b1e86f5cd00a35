"""Repeats answered requests on the live backend and compares: does the candidate say the same?

Off the request's path: a bounded queue and a few workers. What does not fit is dropped and counted,
so mirroring can slow nobody down and cannot run out of memory.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import FlightpathError
from serving.gateway.answers import predicted_classes
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.routing import Backend
from serving.gateway.upstream import Upstream


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorLimits:
    max_queued: int = 256
    max_bytes: int = 32 * 1024 * 1024
    """Of queued requests and answers together."""
    workers: int = 4
    """Mirrored requests at a time: a bound on what mirroring adds to the live backend's load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorJob:
    """A request that `answered_by` has answered with `answer`."""

    model: str
    target: Backend
    answered_by: str
    request: bytes
    answer: bytes
    headers: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        return len(self.request) + len(self.answer)


class Mirror:
    """The queue and its workers. Use `async with`."""

    def __init__(self, upstream: Upstream, ledger: Ledger, metrics: GatewayMetrics, limits: MirrorLimits) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._metrics = metrics
        self._limits = limits
        self._queue: asyncio.Queue[MirrorJob] = asyncio.Queue(maxsize=limits.max_queued)
        self._queued_bytes = 0
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Mirror":
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
        return True

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            self._queued_bytes -= job.size_bytes
            self._metrics.count_mirrored(job.model, await self._compare(job))

    async def _compare(self, job: MirrorJob) -> str:
        """`agreed`, `differed`, or `failed` when there was nothing to compare."""
        try:
            mirrored = await self._upstream.infer(job.target, job.model, job.request, job.headers)
            if mirrored.status != 200:
                return "failed"
            ours, theirs = predicted_classes(job.answer), predicted_classes(mirrored.body)
        except FlightpathError:
            return "failed"
        rows, agreed = agreement(ours, theirs)
        self._ledger.counters(job.model, job.answered_by).compared_rows(rows=rows, agreed=agreed)
        return "agreed" if rows == agreed else "differed"


def agreement(ours: list[int], theirs: list[int]) -> tuple[int, int]:
    """(rows compared, rows with the same class); a missing row agrees with nothing."""
    equal = sum(a == b for a, b in zip(ours, theirs, strict=False))
    return max(len(ours), len(theirs)), equal
