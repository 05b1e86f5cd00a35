"""How often a model's requests may be sent a second time: a share of them, so that retries cannot feed an overload.

When most requests fail, sending each one twice doubles the load of servers that are failing already. Over the last
ten seconds the retries of a model are at most a fifth of its requests, and ten more. A refused connection costs no
server anything and takes nothing from the budget.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryLimits:
    share: float = 0.2
    """Of the requests in the window."""
    minimum: int = 10
    """Retries in the window however few requests there are: three users of a model are failed over too."""
    window_s: int = 10
    """Over which both are counted, seconds."""


class RetryBudget:
    """Of one model: requests and retries by the second."""

    __slots__ = ("_limits", "_requests", "_retries", "_second")

    def __init__(self, limits: RetryLimits) -> None:
        self._limits = limits
        self._requests = [0] * limits.window_s
        self._retries = [0] * limits.window_s
        self._second = 0

    def asked(self, now_s: float) -> None:
        """A request has come."""
        self._requests[self._slot(now_s)] += 1

    def take(self, now_s: float) -> bool:
        """Whether a request may be sent again; counts it if so."""
        slot = self._slot(now_s)
        if sum(self._retries) >= self._limits.minimum + self._limits.share * sum(self._requests):
            return False
        self._retries[slot] += 1
        return True

    def _slot(self, now_s: float) -> int:
        second, window_s = int(now_s), self._limits.window_s
        if second != self._second:
            for passed in range(min(window_s, max(0, second - self._second))):
                slot = (second - passed) % window_s
                self._requests[slot] = self._retries[slot] = 0
            self._second = second
        return second % window_s


class RetryBudgets:
    """By model."""

    def __init__(self, limits: RetryLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._models: dict[str, RetryBudget] = {}

    def asked(self, model: str) -> None:
        self._of(model).asked(self._clock())

    def take(self, model: str) -> bool:
        return self._of(model).take(self._clock())

    def _of(self, model: str) -> RetryBudget:
        budget = self._models.get(model)
        if budget is None:
            budget = self._models[model] = RetryBudget(self._limits)
        return budget

    def forget(self, model: str) -> None:
        self._models.pop(model, None)
