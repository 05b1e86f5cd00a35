"""Whether a candidate answers more slowly than the live version, from both versions' latency histograms.

Ranks ask whether its answers are slower as a whole, tails whether a few of its users wait. Latencies
are compared in one stratum at a time, so that regions and hours of other speed do not mix; all
strata share one alternative, which weighs them as van Elteren's test does.

Evidence is asked for after every poll, and of its strata all but the open window's are the same each time: what
a stratum says is remembered by its counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from serving.errors import InvalidInput
from serving.regions.deciding.bounds import TILTS, Floats, Share, Stratum, mixed, tilted

_REMEMBERED: Final = 512
"""Strata; a promotion of 10 regions asks for 160 at each look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyStratum:
    """Answers per bucket in a stretch of traffic that both versions shared.

    Buckets have common upper bounds that rise; the last one is open-ended.
    """

    candidate: tuple[int, ...]
    live: tuple[int, ...]
    _hash: int = field(init=False, repr=False, compare=False)
    """Known from the start: 600 counts take longer to hash than what is remembered takes to find."""

    def __post_init__(self) -> None:
        if len(self.candidate) != len(self.live):
            raise InvalidInput(
                "latency buckets of the two versions differ",
                got=f"{len(self.candidate)} and {len(self.live)}",
                expected="equal numbers",
            )
        fewest = min(self.candidate + self.live, default=0)
        if fewest < 0:
            raise InvalidInput("latency count is negative", got=fewest, expected=">= 0")
        object.__setattr__(self, "_hash", hash((self.candidate, self.live)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def compares(self) -> bool:
        """Whether both versions answered."""
        return any(self.candidate) and any(self.live)


def slower_evidence(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float = 1.0) -> float:
    """Log e-value that the candidate's answers are slower than `factor` times the live version's.

    Null: they are not, by stochastic order. The score of an answer is its mid-rank among both versions'
    of the stratum, from -1/2 to 1/2, so the statistic is Wilcoxon's with ties.
    """
    return _rank_evidence(strata, bounds_ms, factor, sign=1)


def faster_than_evidence(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float) -> float:
    """Log e-value that the candidate's answers are faster than `factor` times the live version's.

    Null: they are as slow as that or slower. With `factor` 1.25 this shows that the candidate is within 25 %.
    """
    return _rank_evidence(strata, bounds_ms, factor, sign=-1)


def tail_strata(
    strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], share: float = 0.95, factor: float = 1.0
) -> list[Stratum]:
    """Answers that are slow, for `excess_evidence` (too many on the candidate's side?).

    Slow is what lies above the `share` quantile of the candidate's answers and `factor` times the live
    version's taken together. Taken together, because that quantile is blind to which version an answer
    came from: given it, every slow answer is equally likely to be anybody's under the null. The live version's
    own quantile is fitted to the live version: with few answers more of the candidate's lie above it by chance.
    The evidence that the tail is within a margin is that of the `swapped` strata with the margin as `factor`.
    """
    if not 0 < share < 1:
        raise InvalidInput("share of fast answers is out of range", got=share, expected="more than 0, less than 1")
    buckets = _checked(strata, bounds_ms, factor)
    return [_tail(stratum, buckets, factor, share) for stratum in strata if stratum.compares]


def _rank_evidence(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float, *, sign: int) -> float:
    buckets = _checked(strata, bounds_ms, factor)
    log_ratios = np.zeros_like(TILTS)
    for stratum in strata:
        if stratum.compares:
            log_ratios += _rank_ratios(stratum, buckets, factor, sign)
    return mixed(log_ratios)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Buckets:
    """Bounds that have been checked; equal bounds are one object, so it is what they are remembered by."""

    log_bounds: Floats


@lru_cache(maxsize=8)
def _buckets(bounds_ms: tuple[float, ...]) -> _Buckets:
    if not bounds_ms or bounds_ms[0] <= 0 or any(b <= a for a, b in pairwise(bounds_ms)):
        raise InvalidInput("latency bounds are not usable", got=list(bounds_ms), expected="rising, > 0")
    return _Buckets(log_bounds=np.log(np.asarray(bounds_ms, dtype=np.float64)))


def _checked(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float) -> _Buckets:
    if not 0 < factor < math.inf:
        raise InvalidInput("factor of a latency is out of range", got=factor, expected="> 0")
    buckets = _buckets(tuple(bounds_ms))
    for stratum in strata:
        if len(stratum.live) != len(bounds_ms) + 1:
            raise InvalidInput(
                "latency counts do not fit their bounds", got=len(stratum.live), expected=len(bounds_ms) + 1
            )
    return buckets


@lru_cache(maxsize=_REMEMBERED)
def _rank_ratios(stratum: LatencyStratum, buckets: _Buckets, factor: float, sign: int) -> Floats:
    """Log likelihood ratio of each tilt. Not to be written to."""
    candidate, live = _comparable(stratum, buckets, factor)
    both = candidate + live
    used = both > 0
    return tilted(candidate[used], live[used], sign * _mid_ranks(both[used]))


def _mid_ranks(counts: Floats) -> Floats:
    """Score of each bucket: the middle of its ranks as a share of all, less a half."""
    middles: Floats = np.cumsum(counts) - counts / 2
    return middles / float(counts.sum()) - 0.5


@lru_cache(maxsize=_REMEMBERED)
def _tail(stratum: LatencyStratum, buckets: _Buckets, factor: float, share: float) -> Stratum:
    candidate, live = _comparable(stratum, buckets, factor)
    seen = np.cumsum(candidate + live)
    first_slow = int(np.searchsorted(seen, share * seen[-1])) + 1
    return Stratum(candidate=_slow(candidate, first_slow), live=_slow(live, first_slow))


def _slow(counts: Floats, first_slow: int) -> Share:
    bad = float(counts[first_slow:].sum())
    return Share(bad=bad, total=bad + float(counts[:first_slow].sum()))


@lru_cache(maxsize=_REMEMBERED)
def _comparable(stratum: LatencyStratum, buckets: _Buckets, factor: float) -> tuple[Floats, Floats]:
    """Candidate's counts and the live version's as if it took `factor` times as long. Not to be written to."""
    return _floats(stratum.candidate), _scaled(_floats(stratum.live), buckets.log_bounds, factor)


@lru_cache(maxsize=_REMEMBERED)
def _floats(counts: tuple[int, ...]) -> Floats:
    return np.asarray(counts, dtype=np.float64)


def _scaled(counts: Floats, log_bounds: Floats, factor: float) -> Floats:
    """Each answer `factor` times as slow: counts spread evenly over the logarithm of their bucket.

    What lies below the first bound or above the last one stays there.
    """
    if factor == 1.0:
        return counts
    seen = np.cumsum(counts)
    below = np.interp(log_bounds - math.log(factor), log_bounds, seen[:-1])
    return np.diff(np.concatenate(([0.0], below, seen[-1:])))
