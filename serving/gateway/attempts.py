"""Fail-over: the backends of a route in order, each attempt charged to the backend that it went to.

A request goes to two servers at most, within the model's retry budget: one that harms a server must not wander from
server to server, and retries must not feed an overload. Refused connections do not count, for no server had the
request. What another region's gateway did counts as well: it is told how many servers had the request, and tells.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from serving.errors import BadUpstream, Overloaded, PermanentError, RetryableError, TimedOut
from serving.gateway import blame
from serving.gateway.blame import Verdict
from serving.gateway.calls import Call
from serving.gateway.ejection import Ejection
from serving.gateway.lateness import Kind, Lateness, Patience
from serving.gateway.ledger import Ledger
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.retries import RetryBudgets
from serving.gateway.routing import RouteInForce, unserved
from serving.routes import Backend

T = TypeVar("T")

MAX_SERVERS: Final = 2
LEFT: Final = "the client left"
"""With this message a task is cancelled whose client does not wait for it."""


@dataclass(frozen=True, slots=True)
class Books:
    """Where attempts are written down."""

    ledger: Ledger
    metrics: GatewayMetrics
    ejection: Ejection
    lateness: Lateness
    retries: RetryBudgets

    def forget(self, model: str) -> None:
        self.ledger.forget(model)
        self.ejection.retain(model, [])
        self.lateness.forget(model)
        self.retries.forget(model)


class Attempt:
    """The account of one attempt. It is in flight until exactly one ending closes it; later ones are ignored."""

    __slots__ = (
        "_books",
        "_clock",
        "_counters",
        "_first_token_s",
        "_open",
        "_patience",
        "_probe",
        "_started",
        "_tally",
        "backend",
        "bound_s",
        "model",
    )

    def __init__(
        self, model: str, backend: Backend, call: Call, books: Books, patience: Patience, *, clock: Callable[[], float]
    ) -> None:
        self.model = model
        self.backend = backend
        self._books = books
        self._clock = clock
        self._patience = patience
        self._counters = books.ledger.counters(model, backend.id)
        self._probe = books.ejection.began(model, backend)
        self.bound_s = patience.bound_s(remote=backend.remote, probe=self._probe)
        """How long the answer, or the first token of a stream, may take."""
        self._tally = self._counters.synthetic if call.synthetic else self._counters.users
        if not call.synthetic:
            self._counters.in_flight.add(self)
        self._first_token_s: float | None = None
        self._open = True
        self._started = clock()

    def first_token(self) -> float:
        """A stream's first token is its latency; seconds."""
        self._first_token_s = self._clock() - self._started
        self._patience.answered(self._first_token_s, remote=self.backend.remote)
        self._books.ejection.first_token(self.model, self.backend, probe=self._probe)
        return self._first_token_s

    def answered(self) -> None:
        """A whole answer."""
        if not self._open:
            return
        seconds = self._first_token_s
        if seconds is None:
            seconds = self._clock() - self._started
            self._patience.answered(seconds, remote=self.backend.remote)
        self._tally.timed(1000 * seconds)
        self._close(blame.ANSWERED)

    def refused(self) -> None:
        """The backend blames the request, and rightly."""
        self._close(blame.REFUSED)

    def failed(self, error: BaseException) -> Verdict:
        """What the table says of this error."""
        verdict = blame.of_error(error)
        if self._close(verdict) and isinstance(error, RetryableError):
            self._books.metrics.count_error(self.model, self.backend.id, error.code)
        return verdict

    def abandoned(self) -> None:
        """The client left: before a first token that speaks against the backend, after it that is an answer."""
        if self._first_token_s is not None:
            self.answered()
        else:
            self._close(blame.ABANDONED)

    def unknown(self) -> None:
        self._close(blame.UNKNOWN)

    def is_overdue(self) -> bool:
        """Whether it takes longer than the bound allows, a stream until its first token."""
        waiting = self._first_token_s is None
        return waiting and self._clock() - self._started > self._patience.bound_s(remote=self.backend.remote)

    def _close(self, verdict: Verdict) -> bool:
        if not self._open:
            return False
        self._open = False
        self._counters.in_flight.discard(self)
        self._tally.ended(verdict.outcome)
        if self._books.ejection.ended(self.model, self.backend, verdict, probe=self._probe):
            self._counters.ejections += 1
            self._books.metrics.count_ejection(self.model, self.backend.id)
        return True


class FailOver:
    """Runs attempts until one answers."""

    def __init__(
        self,
        books: Books,
        *,
        lives: Callable[[Backend], Awaitable[bool]],
        deadline_s: float = 60.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`lives` asks whether a server says anything at all."""
        self._books = books
        self._lives = lives
        self._deadline_s = deadline_s
        self._clock = clock
        self._learning: dict[str, asyncio.Task[None]] = {}

    async def run(self, in_force: RouteInForce, call: Call, kind: Kind, work: Callable[[Attempt], Awaitable[T]]) -> T:
        """What `work` gives for the first candidate with which it does not raise a RetryableError.

        `work` closes an attempt that has another end than a failure, or hands it on open. Raises
        RetryableError, Overloaded, BadUpstream or TimedOut when all failed or none was there.
        """
        route, started, books = in_force.route, self._clock(), self._books
        candidates = in_force.candidates(hop=call.hop, avoid=books.ejection.avoided(route.model, route.backends))
        if not candidates:
            raise unserved(route)
        books.retries.asked(route.model)
        patience = books.lateness.of(route.model, kind)
        failures: list[RetryableError] = []
        for backend in candidates:
            if failures and not self._may_ask_another(route.model, call, failures[-1], started):
                break
            attempt = Attempt(route.model, backend, call, books, patience, clock=self._clock)
            try:
                result = await work(attempt)
            except RetryableError as failed:
                attempt.failed(failed)
                failures.append(failed)
                call.tried += failed.servers
                continue
            except PermanentError as wrong:
                attempt.failed(wrong)
                raise
            except asyncio.CancelledError as cancelled:
                (attempt.abandoned if LEFT in cancelled.args else attempt.unknown)()
                raise
            except BaseException:
                attempt.unknown()
                raise
            if failures:
                books.metrics.count_failover(route.model)
            return result
        if all(isinstance(failure, TimedOut) for failure in failures) and not backend.remote:
            self._learn(attempt, patience)
        raise all_failed(route.model, failures)

    async def close(self) -> None:
        """End what goes on beside requests."""
        tasks = list(self._learning.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _learn(self, attempt: Attempt, patience: Patience) -> None:
        """Where a request was late everywhere: are the servers slow, or stopped? Only slow ones are waited for longer.

        Off the request's path, one question at a time for each model.
        """

        async def learn() -> None:
            if await self._lives(attempt.backend):
                patience.late_everywhere(attempt.bound_s)

        if attempt.model not in self._learning:
            task = self._learning[attempt.model] = asyncio.create_task(learn())
            task.add_done_callback(lambda done: self._learning.pop(attempt.model, None))

    def _may_ask_another(self, model: str, call: Call, last: RetryableError, started: float) -> bool:
        if self._clock() - started > self._deadline_s or call.tried >= MAX_SERVERS:
            return False
        if not blame.of_error(last).elsewhere:
            return False
        # Where no server had the request, nothing is asked twice.
        return last.servers == 0 or self._books.retries.take(model)


def all_failed(model: str, failures: list[RetryableError]) -> RetryableError:
    """One error for many: that of an overloaded one if there is any, for waiting helps; 504 if all were late, 502 if
    one answered rubbish, 503 otherwise.
    """
    what, reasons = f"no backend of {model} answered", [str(failure) for failure in failures]
    overloaded = next((failure for failure in reversed(failures) if isinstance(failure, Overloaded)), None)
    if overloaded is not None:
        return type(overloaded)(what, got=reasons, retry_after=overloaded.retry_after)
    if all(isinstance(failure, TimedOut | blame.BoundReached) for failure in failures):
        return TimedOut(what, got=reasons)
    if any(isinstance(failure, BadUpstream) for failure in failures):
        return BadUpstream(what, got=reasons)
    return RetryableError(what, got=reasons)
