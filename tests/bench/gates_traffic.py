"""Simulated users of a promotion: what both versions answer, poll by poll, in the gateway's own latency buckets.

Requests are drawn one by one, independently of each other: no hours of the day, no bursts of errors that belong
together, no caches that warm up. A request fails, is refused, or is answered after a lognormal time; where a scenario
has labels, every answer gets one. The candidate's share is exactly the step's. A latency goes to the bucket that the
growth of their bounds gives it, within the rounding of a bound to five digits. Scenarios share their seeds, so what
happens by chance in one happens in others too.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.counters import Counters, Outcomes, latency_bounds_ms
from serving.regions.deciding.policy import ACCURACY, ERRORS, LATENCY, REFUSALS

Counts = NDArray[np.int64]

BOUNDS_MS: Final = latency_bounds_ms()
TICK: Final = 10
"""The candidate's requests between two looks that may be."""
FAILED, REFUSED, WRONG, FIRST_BUCKET = 0, 1, 2, 3
"""Columns of what is counted; answers per latency bucket follow."""
_BLOCK: Final = 10
"""Ticks that are drawn at once."""
_BUCKETS: Final = len(BOUNDS_MS) + 1
_LOG_LOWEST: Final = math.log(BOUNDS_MS[0])
_LOG_GROWTH: Final = math.log(1.049)


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """How one version behaves."""

    errors: float = 0.0
    """Share of its requests."""
    refusals: float = 0.0
    """Share of its requests."""
    median_ms: float = 20.0
    sigma: float = 0.1
    """Of the latency's logarithm. Narrow unless latency is what a scenario is about: it takes less time to judge."""
    accuracy: float = 1.0

    @property
    def p95_ms(self) -> float:
        return self.median_ms * math.exp(1.6449 * self.sigma)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    name: str
    live: Version
    candidate: Version
    labelled: bool = False
    """Whether users say for each answer if it was right, and the policy requires the gate."""

    @property
    def gates(self) -> list[str]:
        return [ERRORS, REFUSALS, LATENCY, *([ACCURACY] if self.labelled else [])]


class Stream:
    """What one version answers in one step: a row of counts for each tick, drawn as far as somebody looks."""

    def __init__(self, version: Version, per_tick: int, rng: np.random.Generator) -> None:
        self._version = version
        self._per_tick = per_tick
        self._rng = rng
        self._rows = np.zeros((0, FIRST_BUCKET + _BUCKETS), dtype=np.int64)

    def rows(self, start: int, stop: int) -> Counts:
        """Shape (ticks, columns)."""
        while len(self._rows) < stop:
            self._rows = np.concatenate((self._rows, self._draw(max(_BLOCK, len(self._rows)))))
        return self._rows[start:stop]

    def between(self, start: int, stop: int) -> Counts:
        return self.rows(start, stop).sum(axis=0)

    def _draw(self, ticks: int) -> Counts:
        version, count = self._version, ticks * self._per_tick
        fate = self._rng.random(count, dtype=np.float32)
        failed = fate < version.errors
        refused = ~failed & (fate < version.errors + version.refusals)
        answered = ~(failed | refused)
        times = self._rng.standard_normal(count, dtype=np.float32) * version.sigma + math.log(version.median_ms)
        bucket = np.clip(np.ceil((times - _LOG_LOWEST) / _LOG_GROWTH), 0, _BUCKETS - 1).astype(np.int64)
        wrong = answered & (self._rng.random(count, dtype=np.float32) >= version.accuracy)
        column = np.where(failed, FAILED, np.where(refused, REFUSED, FIRST_BUCKET + bucket))
        tick = np.repeat(np.arange(ticks), self._per_tick)
        width = FIRST_BUCKET + _BUCKETS
        rows = np.bincount(tick * width + column, minlength=ticks * width).reshape(ticks, width)
        rows[:, WRONG] = np.bincount(tick[wrong], minlength=ticks)
        return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTraffic:
    """Both versions in one step."""

    candidate: Stream
    baseline: Stream
    """As much of the live version's traffic as the candidate has, where it has any."""
    others: Stream
    """The rest of the live version's."""

    def live(self, start: int, stop: int) -> Counts:
        return self.baseline.between(start, stop) + self.others.between(start, stop)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One promotion's: whoever judges it sees the same requests, as many as he asks for."""

    scenario: Scenario
    seed: int
    _steps: dict[tuple[int, int], StepTraffic] = field(default_factory=dict)

    def step(self, region: int, percent: int) -> StepTraffic:
        if (region, percent) not in self._steps:
            live = round(TICK * (100 - percent) / percent)
            sizes = (TICK, min(live, TICK), max(0, live - TICK))
            versions = (self.scenario.candidate, self.scenario.live, self.scenario.live)
            seeds = np.random.SeedSequence([self.seed, region, percent]).spawn(3)
            candidate, baseline, others = (
                Stream(version, size, np.random.Generator(np.random.SFC64(seed)))
                for version, size, seed in zip(versions, sizes, seeds, strict=True)
            )
            self._steps[region, percent] = StepTraffic(candidate=candidate, baseline=baseline, others=others)
        return self._steps[region, percent]


def requests(counts: Counts) -> int:
    return int(counts[FAILED] + counts[REFUSED] + counts[FIRST_BUCKET:].sum())


def counters(counts: Counts, *, labelled: bool) -> Counters:
    """As a gateway would have counted them."""
    latencies = tuple(counts[FIRST_BUCKET:].tolist())
    answered, wrong = sum(latencies), int(counts[WRONG])
    users = Outcomes(answered=answered, refused=int(counts[REFUSED]), failed=int(counts[FAILED]), latencies=latencies)
    return Counters(
        users=users,
        labelled=answered if labelled else 0,
        correct=float(answered - wrong) if labelled else 0.0,
        bounds_ms=BOUNDS_MS,
    )
