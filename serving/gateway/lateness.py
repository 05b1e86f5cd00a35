"""How long an attempt may take: as long as the model's answers usually do, twenty times over.

A server that is stopped (SIGSTOP, a hung GPU, a cut network) keeps its connections open and says nothing. Only time
tells, and a classifier that answers in 5 ms need not be waited for as a language model must be. Each model has one
sketch per kind of answer, of recent answers whichever version gave them, so that a new version which hangs is judged
by what the model's users are used to. Without enough answers the first bounds hold: a server may be stopped before it
ever answered.
"""

import bisect
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from serving.counters import latency_bounds_ms, percentile_ms


class Kind(Enum):
    """What is timed."""

    INFER = "infer"
    FIRST_TOKEN = "first token"
    COMPLETION = "whole completion"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Seconds."""

    floor_s: float
    """However fast the model is: a pause of a busy machine is no fault."""
    first_s: float
    """While too few answers are known."""
    longest_s: float
    """However slow the model is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatenessLimits:
    infer: Bounds = field(default=Bounds(floor_s=2.0, first_s=10.0, longest_s=30.0))
    """Of an answer of the Open Inference Protocol: at least, while too few are known, and at most, seconds."""
    first_token: Bounds = field(default=Bounds(floor_s=2.0, first_s=30.0, longest_s=60.0))
    """Of a stream's first token."""
    completion: Bounds = field(default=Bounds(floor_s=60.0, first_s=120.0, longest_s=600.0))
    """Of a completion that is not streamed: one of 16 tokens tells little of one of 4,000."""
    factor: float = 20.0
    """Times the 99th percentile of recent answers."""
    min_answers: int = 20
    """Fewer say nothing about a 99th percentile."""
    kept_answers: int = 2048
    """When so many are in a sketch all counts are halved: older answers fade."""
    remote_floor_s: float = 5.0
    """Of another region, whose gateway may wait a floor of its own for one server and then ask a second one."""
    probe_floor_s: float = 0.25
    """Of the request that tries a server which was late: it has lost the benefit of the doubt."""
    probe_first_s: float = 2.0
    """The same while too few answers are known."""

    def bounds(self, kind: Kind) -> Bounds:
        return {Kind.INFER: self.infer, Kind.FIRST_TOKEN: self.first_token, Kind.COMPLETION: self.completion}[kind]


_SHARE: Final = 0.99
_BOUNDS_MS: Final = latency_bounds_ms()
_READ_AGAIN: Final = 64
"""Answers after which a percentile is computed anew; before as many, an eighth of what is there."""


class Sketch:
    """A histogram of recent latencies that fades."""

    __slots__ = ("_counts", "_fresh_for", "_kept", "_p99_s", "_total")

    def __init__(self, *, kept: int) -> None:
        self._counts = [0] * (len(_BOUNDS_MS) + 1)
        self._total = 0
        self._kept = kept
        self._fresh_for = 0
        self._p99_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(_BOUNDS_MS, 1000 * seconds)] += 1
        self._total += 1
        self._fresh_for -= 1
        if self._total >= self._kept:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    @property
    def is_stale(self) -> bool:
        """Whether the percentile that was read last should be read again."""
        return self._fresh_for <= 0

    def read_again(self) -> None:
        """The percentile is computed anew when it is next asked for."""
        self._fresh_for = 0

    def p99_s(self, *, min_answers: int) -> float | None:
        """None with fewer answers than `min_answers`."""
        if self._total < min_answers:
            return None
        if self._fresh_for <= 0:
            self._p99_s = (percentile_ms(_BOUNDS_MS, self._counts, _SHARE) or 0.0) / 1000
            self._fresh_for = min(_READ_AGAIN, max(1, self._total // 8))
        return self._p99_s


class Patience:
    """The bounds of one model and kind."""

    __slots__ = ("_bounds", "_limits", "_local", "_local_s", "_remote")

    def __init__(self, kind: Kind, limits: LatenessLimits) -> None:
        self._limits = limits
        self._bounds = limits.bounds(kind)
        self._local = Sketch(kept=limits.kept_answers)
        self._remote = Sketch(kept=limits.kept_answers)
        self._local_s: float | None = None
        """The bound on a local attempt, until the sketch has changed."""
        # Other regions are timed apart: what the network adds says nothing about servers here.

    def answered(self, seconds: float, *, remote: bool) -> None:
        """An answer, or its first token, came after so long."""
        (self._remote if remote else self._local).add(seconds)

    def late_everywhere(self, seconds: float) -> None:
        """A request was late wherever it was asked, of servers that are alive: noted as an answer of that length.

        Otherwise a model whose answers grow slower than its bound would never show it, since each is cut off before
        it can be timed.
        """
        self._local.add(seconds)
        self._local.read_again()

    def bound_s(self, *, remote: bool = False, probe: bool = False) -> float:
        """How long an attempt may take."""
        if remote or probe:
            self._local_s = None
            return self._compute_s(remote=remote, probe=probe)
        if self._local_s is None or self._local.is_stale:
            self._local_s = self._compute_s(remote=False, probe=False)
        return self._local_s

    def _compute_s(self, *, remote: bool, probe: bool) -> float:
        limits, bounds = self._limits, self._bounds
        p99_s = (self._remote if remote else self._local).p99_s(min_answers=limits.min_answers)
        if p99_s is None:
            wanted_s = bounds.first_s
        else:
            wanted_s = max(bounds.floor_s, limits.remote_floor_s if remote else 0.0, limits.factor * p99_s)
        if probe:
            suspect_s = limits.probe_first_s if p99_s is None else max(limits.probe_floor_s, limits.factor * p99_s)
            wanted_s = min(wanted_s, suspect_s + (limits.remote_floor_s if remote else 0.0))
        return min(wanted_s, bounds.longest_s)


class Lateness:
    """Patience by model and kind."""

    def __init__(self, limits: LatenessLimits) -> None:
        self._limits = limits
        self._models: dict[tuple[str, Kind], Patience] = {}

    def of(self, model: str, kind: Kind) -> Patience:
        patience = self._models.get((model, kind))
        if patience is None:
            patience = self._models[model, kind] = Patience(kind, self._limits)
        return patience

    def forget(self, model: str) -> None:
        for kind in Kind:
            self._models.pop((model, kind), None)
