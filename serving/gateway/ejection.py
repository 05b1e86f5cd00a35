"""Passive ejection: a backend that fails again and again is no first choice for a while.

After three failures in a row, or one answer that did not come in time, it is passed over, for a second at first and
twice as long each time up to a bound. Then a single request tries it: a sign of life takes it back, a failure ejects
it again. What is the user's, and having no room, ejects nobody. Who is passed
over is still asked when all others failed, and if every backend is, none is. Counters are kept elsewhere
and know nothing of this: a failure that led here is an error of the backend all the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.gateway.blame import Ejects, Verdict
from serving.routes import Backend


@dataclass(frozen=True, kw_only=True, slots=True)
class EjectionLimits:
    consecutive_failures: int = 3
    """Fewer are taken for chance: a restart, one bad request."""
    first_s: float = 1.0
    """As long as a supervised server takes to come back at best."""
    longest_s: float = 30.0
    """After a repair, traffic comes back within this."""


@dataclass(slots=True)
class _Sick:
    """A backend whose last attempt failed."""

    failures: int = 0
    """In a row."""
    ejections: int = 0
    """In a row: the exponent of the next one's length."""
    until: float | None = None
    """On the clock; None while it is not ejected."""
    probed: bool = False
    """An attempt is under way that decides whether it comes back."""


Key = tuple[str, str, str]


class Ejection:
    """The backends that failed last time they were asked. Healthy ones take no memory and no time."""

    def __init__(self, limits: EjectionLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._sick: dict[Key, _Sick] = {}

    def avoided(self, model: str, backends: Sequence[Backend]) -> frozenset[str]:
        """Ids of the backends that are no first choice now."""
        if not self._sick:
            return frozenset()
        return frozenset(backend.id for backend in backends if self.ejected(model, backend))

    def ejected(self, model: str, backend: Backend) -> bool:
        sick = self._sick.get(_key(model, backend))
        if sick is None or sick.until is None:
            return False
        return sick.probed or self._clock() < sick.until

    def began(self, model: str, backend: Backend) -> bool:
        """Whether the attempt that begins now is the one that decides."""
        sick = self._sick.get(_key(model, backend))
        if sick is None or sick.until is None or sick.probed or self._clock() < sick.until:
            return False
        sick.probed = True
        return True

    def first_token(self, model: str, backend: Backend, *, probe: bool) -> None:
        """A stream has begun: enough to come back, not enough to forget the failures before."""
        sick = self._sick.get(_key(model, backend))
        if sick is not None and probe:
            sick.until, sick.probed = None, False
            sick.failures = self._limits.consecutive_failures - 1

    def ended(self, model: str, backend: Backend, verdict: Verdict, *, probe: bool) -> bool:
        """Note how an attempt ended; whether it ejects the backend."""
        if verdict.ejects is not Ejects.NEVER:
            return self._failed(model, backend, probe=probe, at_once=verdict.ejects is Ejects.AT_ONCE)
        if self._sick:
            if verdict.alive and (probe or not verdict.elsewhere):
                self._sick.pop(_key(model, backend), None)
            elif probe:
                self._undecided(model, backend)
        return False

    def _failed(self, model: str, backend: Backend, *, probe: bool, at_once: bool) -> bool:
        sick = self._sick.setdefault(_key(model, backend), _Sick())
        sick.failures += 1
        if sick.until is not None and not probe:
            # Begun before the ejection, or asked as the last resort: no news.
            return False
        if sick.failures < self._limits.consecutive_failures and not at_once:
            return False
        length_s = min(self._limits.longest_s, math.ldexp(self._limits.first_s, min(sick.ejections, 30)))
        sick.until, sick.probed = self._clock() + length_s, False
        sick.ejections += 1
        return True

    def _undecided(self, model: str, backend: Backend) -> None:
        """The attempt said nothing about the backend: another one may decide."""
        sick = self._sick.get(_key(model, backend))
        if sick is not None:
            sick.probed = False

    def retain(self, model: str, backends: Sequence[Backend]) -> None:
        """Forget backends that the model's route no longer names; a new address is a new backend."""
        routed = {_key(model, backend) for backend in backends}
        self._sick = {key: sick for key, sick in self._sick.items() if key[0] != model or key in routed}


def _key(model: str, backend: Backend) -> Key:
    return model, backend.id, backend.url
