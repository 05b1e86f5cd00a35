"""How others would have decided the same promotion: thresholds, Mann-Whitney, and this project's own rule of before.

Each is set up as its documentation has it, gets 5,000 of the candidate's requests in each step, and is told more than
it would know in practice where that helps it: thresholds know the live version's true p95 and accuracy. None of them
accumulates evidence over steps or regions.

*Argo Rollouts*, docs/features/analysis.md: a measurement is a rate over the last interval against a fixed
`successCondition`; here at most 1 % errors, 1 % refusals, 1.25 x the live p95, 2 points less accuracy. Two examples:
five measurements in each step, of 1,000 requests, of which none may fail (`count: 5`, `failureLimit` unset, that is 0);
and a run in the background, ten measurements a step, of 500 requests, that ends at the third failure of a metric in a
region (so the page explains its `failureLimit: 3`).

*Kayenta*, NetflixACAJudge: one value for each metric and interval; a metric is high if the 98 % confidence interval of
the Hodges-Lehmann shift between canary and an equally large baseline lies above a quarter of its estimate. At least
50 intervals are recommended; one has 100 requests here. One high metric of three leaves a score below the pass mark of
its examples (90), hence a rollback. The interval of the shift is read from the ordered pairwise differences, without
the correction for ties that Kayenta solves for; outliers are kept. The step at 100 % has no baseline: not judged.

*Before*, this project at commit 529577c: at 50 requests, or as soon as more have failed than 1 % of them may; p95 of
the step against 2 x the live version's but at least 50 ms; labels by a one-sided binomial test at 5 %. Refusals were
not counted, nor are they here.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom  # type: ignore[import-untyped]

from serving.counters import percentile_ms
from tests.bench.gates_promotion import PASSED, REGIONS, ROLLED_BACK, End
from tests.bench.gates_traffic import (
    BOUNDS_MS,
    FAILED,
    FIRST_BUCKET,
    REFUSED,
    TICK,
    WRONG,
    Counts,
    Scenario,
    StepTraffic,
    Traffic,
    requests,
)

STEPS: Final = (5, 25, 50, 100)
_INTERVAL: Final = 100 // TICK
"""Kayenta's, in ticks."""
_MAX_ERRORS: Final = 0.01
_SLOWER: Final = 1.25
_ACCURACY_DROP: Final = 0.02
_POINTS: Final = 50
_TOLERANCE: Final = 0.25
_Z98: Final = 2.3263
"""Of the standard normal distribution, two-sided 98 %."""
_MIDDLES_MS: Final = np.sqrt(np.array([BOUNDS_MS[0], *BOUNDS_MS]) * np.array([*BOUNDS_MS, BOUNDS_MS[-1]]))
"""What a bucket's answers are taken to have needed, as `percentile_ms` has it."""
Metrics = NDArray[np.float64]


def _walk(traffic: Traffic) -> Iterator[tuple[int, int, StepTraffic]]:
    for region in range(REGIONS):
        for percent in STEPS:
            yield region, percent, traffic.step(region, percent)


# Argo Rollouts


def argo_in_steps(traffic: Traffic) -> End:
    return _argo(traffic, measurements=5, ticks=1000 // TICK, failures=1)


def argo_in_background(traffic: Traffic) -> End:
    return _argo(traffic, measurements=10, ticks=500 // TICK, failures=3)


def _argo(traffic: Traffic, *, measurements: int, ticks: int, failures: int) -> End:
    spent, within, failed = 0, 0, np.zeros(4, dtype=np.int64)
    for region, _, step in _walk(traffic):
        if region != within:
            failed, within = np.zeros_like(failed), region
        for start in range(0, measurements * ticks, ticks):
            spent += ticks * TICK
            failed += _over(step.candidate.between(start, start + ticks), traffic.scenario)
            if failed.max() >= failures:
                return End(outcome=ROLLED_BACK, requests=spent)
    return End(outcome=PASSED, requests=spent)


def _over(counts: Counts, scenario: Scenario) -> NDArray[np.bool_]:
    """Which metrics of one measurement are beyond their thresholds."""
    wrong = 1 - scenario.live.accuracy + _ACCURACY_DROP if scenario.labelled else 1.0
    return np.greater(_metrics(counts[None])[:, 0], (_MAX_ERRORS, _MAX_ERRORS, _SLOWER * scenario.live.p95_ms, wrong))


def _metrics(points: Counts) -> Metrics:
    """Shares of errors and of refusals, p95 in ms, share of wrong labels: shape (metrics, points)."""
    answers = points[:, FIRST_BUCKET:]
    answered = answers.sum(axis=1)
    total = answered + points[:, FAILED] + points[:, REFUSED]
    rank = np.maximum(1, np.ceil(0.95 * answered))
    p95_ms = _MIDDLES_MS[(np.cumsum(answers, axis=1) < rank[:, None]).sum(axis=1).clip(max=len(BOUNDS_MS))]
    wrong = points[:, WRONG] / np.maximum(1, answered)
    return np.array([points[:, FAILED] / total, points[:, REFUSED] / total, p95_ms, wrong])


# Kayenta


def kayenta(traffic: Traffic) -> End:
    spent = 0
    for _, percent, step in _walk(traffic):
        spent += _POINTS * _INTERVAL * TICK
        if percent < 100:
            canary, baseline = _series(step.candidate.rows), _series(step.baseline.rows)
            if any(is_high(ours, theirs) for ours, theirs in zip(canary, baseline, strict=True)):
                return End(outcome=ROLLED_BACK, requests=spent)
    return End(outcome=PASSED, requests=spent)


def _series(rows: Callable[[int, int], Counts]) -> Metrics:
    """Shape (metrics, points)."""
    return _metrics(rows(0, _POINTS * _INTERVAL).reshape(_POINTS, _INTERVAL, -1).sum(axis=1))


def is_high(canary: Metrics, baseline: Metrics) -> bool:
    """Mann-Whitney's confidence interval of the shift, against the tolerance (Hollander and Wolfe, 4.3)."""
    differences = np.sort((canary[:, None] - baseline[None, :]).ravel())
    m, n = len(canary), len(baseline)
    lowest = max(0, math.floor(m * n / 2 - _Z98 * math.sqrt(m * n * (m + n + 1) / 12)))
    return bool(differences[lowest] > _TOLERANCE * abs(float(np.median(differences))))


# Before


def before(traffic: Traffic) -> End:
    spent = 0
    for _, _, step in _walk(traffic):
        for tick in range(1, 50 // TICK + 1):
            spent += TICK
            counts = step.candidate.between(0, tick)
            if counts[FAILED] > _MAX_ERRORS * max(50, requests(counts)):
                return End(outcome=ROLLED_BACK, requests=spent, why="errors")
        ours, theirs = counts, step.live(0, 50 // TICK)
        if _slower_than_before(ours, theirs) or (traffic.scenario.labelled and _less_accurate(ours, theirs)):
            return End(outcome=ROLLED_BACK, requests=spent)
    return End(outcome=PASSED, requests=spent)


def _slower_than_before(ours: Counts, theirs: Counts) -> bool:
    p95_ms = percentile_ms(BOUNDS_MS, ours[FIRST_BUCKET:].tolist(), 0.95)
    live_ms = percentile_ms(BOUNDS_MS, theirs[FIRST_BUCKET:].tolist(), 0.95)
    allowed = 250.0 if live_ms is None else min(250.0, max(50.0, 2.0 * live_ms))
    return p95_ms is not None and p95_ms > allowed


def _less_accurate(ours: Counts, theirs: Counts) -> bool:
    """The step at 100 % was held against the live version since the gateway's boot; it is not judged here."""
    answered, live = int(ours[FIRST_BUCKET:].sum()), int(theirs[FIRST_BUCKET:].sum())
    if answered < 30 or live < 30:
        return False
    allowed = max(0.0, 1 - theirs[WRONG] / live - _ACCURACY_DROP)
    right = answered - int(ours[WRONG])
    return bool(right / answered < allowed and binom.cdf(right, answered, allowed) < 0.05)


PEERS: Final[dict[str, Callable[[Traffic], End]]] = {
    "thresholds in steps (Argo)": argo_in_steps,
    "thresholds in background (Argo)": argo_in_background,
    "Mann-Whitney (Kayenta)": kayenta,
    "before": before,
}
