"""What each backend did since this process started: the figures that a canary's gates are judged by.

Counters only grow; a reader takes differences of two readings. Latencies go to log-spaced buckets
whose bounds grow by less than 5 %, so a percentile read from them is off by less than 5 %, and
two readings subtract exactly.
"""

import bisect
import itertools
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_LOWEST_MS: Final = 0.1
_HIGHEST_MS: Final = 120_000.0
_GROWTH: Final = 1.049
_KEPT_BACKENDS: Final = 64


def latency_bounds_ms() -> tuple[float, ...]:
    """Upper bounds from 0.1 ms to 2 min, each less than 5 % above the one before."""
    steps = math.ceil(math.log(_HIGHEST_MS / _LOWEST_MS, _GROWTH))
    return tuple(float(f"{_LOWEST_MS * _GROWTH**step:.5g}") for step in range(steps + 1))


def percentile_ms(bounds_ms: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The latency that `share` (0 to 1) of the answers did not exceed, within 5 %; None without answers.

    The geometric middle of the bucket that holds it; answers above the last bound count as the last bound.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = max(1, math.ceil(share * total))
    index = bisect.bisect_left(list(itertools.accumulate(counts)), rank)
    if index == 0:
        return bounds_ms[0]
    if index == len(bounds_ms):
        return bounds_ms[-1]
    return math.sqrt(bounds_ms[index - 1] * bounds_ms[index])


@dataclass(kw_only=True, slots=True)
class BackendCounters:
    """Cumulative counters of one backend."""

    bounds_ms: tuple[float, ...]
    requests: int = 0
    """Attempts, mirrored ones excluded."""
    synthetic: int = 0
    """Those of the attempts that an agent replayed."""
    errors: int = 0
    compared: int = 0
    """Rows whose answer was compared with the mirror's."""
    agreed: int = 0
    labelled: int = 0
    """Rows whose truth came in by feedback."""
    correct: int = 0
    ejections: int = 0
    """How often it was passed over for a while, see ejection.py."""
    in_flight: int = 0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds_ms) + 1)

    def began(self, *, synthetic: bool) -> None:
        self.requests += 1
        self.synthetic += synthetic
        self.in_flight += 1

    def ended(self) -> None:
        self.in_flight -= 1

    def answered(self, latency_ms: float) -> None:
        """A successful answer; errors have no latency, so that fast failures cannot look like speed."""
        self.counts[bisect.bisect_left(self.bounds_ms, latency_ms)] += 1

    def failed(self) -> None:
        self.errors += 1

    def ejected(self) -> None:
        self.ejections += 1

    def compared_rows(self, *, rows: int, agreed: int) -> None:
        self.compared += rows
        self.agreed += agreed

    def labelled_rows(self, *, rows: int, correct: int) -> None:
        self.labelled += rows
        self.correct += correct

    def percentile_ms(self, share: float) -> float | None:
        return percentile_ms(self.bounds_ms, self.counts, share)

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "synthetic": self.synthetic,
            "errors": self.errors,
            "compared": self.compared,
            "agreed": self.agreed,
            "labelled": self.labelled,
            "correct": self.correct,
            "latency": {"bounds_ms": list(self.bounds_ms), "counts": list(self.counts)},
            "ejections": self.ejections,
            "in_flight": self.in_flight,
        }


class Ledger:
    """Counters by model and backend id."""

    def __init__(self) -> None:
        self.boot_id = secrets.token_hex(8)
        self._bounds_ms = latency_bounds_ms()
        self._models: dict[str, dict[str, BackendCounters]] = {}

    def counters(self, model: str, backend_id: str) -> BackendCounters:
        """The backend's counters, made on first use."""
        backends = self._models.setdefault(model, {})
        if backend_id not in backends:
            backends[backend_id] = BackendCounters(bounds_ms=self._bounds_ms)
        return backends[backend_id]

    def retain(self, model: str, routed: set[str]) -> None:
        """Bound the memory: forget the oldest backends that are neither routed nor busy."""
        backends = self._models.get(model, {})
        idle = [key for key, counters in backends.items() if key not in routed and counters.in_flight == 0]
        for key in idle[: max(0, len(backends) - _KEPT_BACKENDS)]:
            del backends[key]

    def forget(self, model: str) -> None:
        self._models.pop(model, None)

    def to_json(self, model: str, *, routed: Sequence[str] = ()) -> dict[str, Any]:
        """Every backend that was used, and each of `routed` even if it was not."""
        for backend_id in routed:
            self.counters(model, backend_id)
        backends = self._models.get(model, {})
        return {
            "boot_id": self.boot_id,
            "model": model,
            "backends": {backend_id: counters.to_json() for backend_id, counters in backends.items()},
        }
