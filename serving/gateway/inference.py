"""Answers one request from a route: the weighted choice first, then whoever is left.

Each attempt is charged to its backend. The user sees a failure only when every candidate failed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from serving.errors import BadUpstream, FlightpathError, RetryableError, TimedOut
from serving.gateway.feedback import FeedbackMemory
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.mirror import Mirror, MirrorJob
from serving.gateway.routing import Backend, Route, RouteInForce, unserved
from serving.gateway.upstream import Answer, Upstream


@dataclass(frozen=True, slots=True)
class Call:
    """What a request's headers say about it."""

    request_id: str
    hop: bool = False
    """Another region's gateway sent it: it must not leave this region."""
    synthetic: bool = False
    """An agent replays it."""
    traceparent: str | None = None

    def headers_for(self, backend: Backend) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-request-id": self.request_id}
        if backend.remote:
            headers["x-flightpath-hop"] = "1"
        if self.synthetic:
            headers["x-flightpath-synthetic"] = "1"
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
        return headers


@dataclass(frozen=True, slots=True)
class Served:
    """An answer and who gave it; for a remote backend, what the other gateway said of itself."""

    answer: Answer
    region: str
    version: int
    release: str


class Inference:
    """Attempts, fail-over, accounting and mirroring."""

    def __init__(
        self,
        upstream: Upstream,
        ledger: Ledger,
        memory: FeedbackMemory,
        mirror: Mirror,
        metrics: GatewayMetrics,
        *,
        deadline_s: float = 60.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._upstream = upstream
        self._ledger = ledger
        self._memory = memory
        self._mirror = mirror
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._clock = clock

    async def answer(self, in_force: RouteInForce, body: bytes, call: Call) -> Served:
        """The first candidate's answer that is no failure; else RetryableError, BadUpstream or TimedOut."""
        route, started = in_force.route, self._clock()
        candidates = in_force.candidates(hop=call.hop)
        if not candidates:
            raise unserved(route)
        failures: list[FlightpathError] = []
        for backend in candidates:
            if failures and self._clock() - started > self._deadline_s:
                break
            try:
                answer = await self._attempt(route.model, backend, body, call)
            except RetryableError as failed:
                failures.append(failed)
                continue
            if failures:
                self._metrics.count_failover(route.model)
            return self._account(route, backend, body, answer, call)
        raise all_failed(route.model, failures)

    async def _attempt(self, model: str, backend: Backend, body: bytes, call: Call) -> Answer:
        counters = self._ledger.counters(model, backend.id)
        counters.began(synthetic=call.synthetic)
        started = self._clock()
        try:
            answer = await self._upstream.infer(backend, model, body, call.headers_for(backend))
        except RetryableError as failed:
            counters.failed()
            self._metrics.count_error(model, backend.id, failed.code)
            raise
        finally:
            counters.ended()
        if answer.status < 400:
            counters.answered((self._clock() - started) * 1000)
        return answer

    def _account(self, route: Route, backend: Backend, body: bytes, answer: Answer, call: Call) -> Served:
        if answer.status == 200:
            self._memory.remember(call.request_id, route.model, backend.id, answer.body)
            self._repeat_on_mirror(route, backend, body, answer, call)
        if not backend.remote:
            return Served(answer, backend.region, backend.version, backend.release)
        told = answer.headers
        version = told.get("x-flightpath-version", "")
        return Served(
            answer,
            told.get("x-flightpath-region", backend.region),
            int(version) if version.isascii() and version.isdigit() else backend.version,
            told.get("x-flightpath-release", backend.release),
        )

    def _repeat_on_mirror(self, route: Route, backend: Backend, body: bytes, answer: Answer, call: Call) -> None:
        target = None if backend.id == route.mirror_to else route.backend(route.mirror_to)
        if target is None or (call.hop and target.remote):
            return
        self._mirror.submit(
            MirrorJob(
                model=route.model,
                target=target,
                answered_by=backend.id,
                request=body,
                answer=answer.body,
                headers=call.headers_for(target),
            )
        )


def all_failed(model: str, failures: list[FlightpathError]) -> RetryableError:
    """One error for many: 504 if all were late, 502 if one answered rubbish, 503 otherwise."""
    what, reasons = f"no backend of {model} answered", [str(failure) for failure in failures]
    if all(isinstance(failure, TimedOut) for failure in failures):
        return TimedOut(what, got=reasons)
    if any(isinstance(failure, BadUpstream) for failure in failures):
        return BadUpstream(what, got=reasons)
    return RetryableError(what, got=reasons)
