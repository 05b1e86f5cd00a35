"""Fail-over: the backends of a route in order, each attempt charged to the backend that it went to.

The user sees a failure only when every candidate failed.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from serving.errors import BadUpstream, FlightpathError, RetryableError, TimedOut
from serving.gateway.calls import Call
from serving.gateway.ejection import Ejection
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.routing import Backend, RouteInForce, unserved

T = TypeVar("T")


class Attempt:
    """The account of one attempt. It is in flight until exactly one outcome closes it; later ones are ignored."""

    def __init__(self, model: str, backend: Backend, call: Call, books: "Books", *, clock: Callable[[], float]) -> None:
        self.model = model
        self.backend = backend
        self._books = books
        self._clock = clock
        self._counters = books.ledger.counters(model, backend.id)
        self._counters.began(synthetic=call.synthetic)
        self._probe = books.ejection.began(model, backend)
        self._started = clock()
        self._latency_s: float | None = None
        self._open = True

    def first_token(self) -> float:
        """A stream's first token is its latency; seconds."""
        self._latency_s = self._clock() - self._started
        self._books.ejection.first_token(self.model, self.backend, probe=self._probe)
        return self._latency_s

    def succeeded(self) -> None:
        """A whole answer."""
        if self._close():
            self._note_latency(self._clock() - self._started)
            self._books.ejection.succeeded(self.model, self.backend)

    def refused(self) -> None:
        """The backend blames the request: no error of its own, and a sign of life."""
        if self._close():
            self._books.ejection.succeeded(self.model, self.backend)

    def failed(self, error: FlightpathError) -> None:
        if not self._close():
            return
        self._counters.failed()
        self._books.metrics.count_error(self.model, self.backend.id, error.code)
        if self._books.ejection.failed(self.model, self.backend, probe=self._probe):
            self._counters.ejected()
            self._books.metrics.count_ejection(self.model, self.backend.id)

    def abandoned(self) -> None:
        """The user left: nobody is charged, and a first token that came keeps its latency."""
        if self._close():
            self._books.ejection.abandoned(self.model, self.backend, probe=self._probe)
            if self._latency_s is not None:
                self._note_latency(self._latency_s)

    def _note_latency(self, whole_s: float) -> None:
        self._counters.answered(1000 * (whole_s if self._latency_s is None else self._latency_s))

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._counters.ended()
        return was_open


class Books:
    """Where attempts are written down."""

    def __init__(self, ledger: Ledger, metrics: GatewayMetrics, ejection: Ejection) -> None:
        self.ledger = ledger
        self.metrics = metrics
        self.ejection = ejection


class FailOver:
    """Runs attempts until one answers."""

    def __init__(
        self, books: Books, *, deadline_s: float = 60.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._books = books
        self._deadline_s = deadline_s
        self._clock = clock

    async def run(self, in_force: RouteInForce, call: Call, work: Callable[[Attempt], Awaitable[T]]) -> T:
        """What `work` gives for the first candidate with which it does not raise a RetryableError.

        `work` closes an attempt that has another end than a failure, or hands it on open. Raises
        RetryableError, BadUpstream or TimedOut when all failed or none was there.
        """
        route, started = in_force.route, self._clock()
        avoid = self._books.ejection.avoided(route.model, route.backends)
        candidates = in_force.candidates(hop=call.hop, avoid=avoid)
        if not candidates:
            raise unserved(route)
        failures: list[FlightpathError] = []
        for backend in candidates:
            if failures and self._clock() - started > self._deadline_s:
                break
            attempt = Attempt(route.model, backend, call, self._books, clock=self._clock)
            try:
                result = await work(attempt)
            except RetryableError as failed:
                attempt.failed(failed)
                failures.append(failed)
                continue
            except BaseException:
                attempt.abandoned()
                raise
            if failures:
                self._books.metrics.count_failover(route.model)
            return result
        raise all_failed(route.model, failures)


def all_failed(model: str, failures: list[FlightpathError]) -> RetryableError:
    """One error for many: 504 if all were late, 502 if one answered rubbish, 503 otherwise."""
    what, reasons = f"no backend of {model} answered", [str(failure) for failure in failures]
    if all(isinstance(failure, TimedOut) for failure in failures):
        return TimedOut(what, got=reasons)
    if any(isinstance(failure, BadUpstream) for failure in failures):
        return BadUpstream(what, got=reasons)
    return RetryableError(what, got=reasons)
