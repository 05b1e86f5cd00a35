"""Slower or not, as a whole and in the tail: exact figures, shape, and how often it is wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.gateway.ledger import latency_bounds_ms
from serving.regions.deciding.bounds import LOG_WEIGHTS, TILTS, Share, Stratum, excess_evidence, reaches
from serving.regions.deciding.ranks import (
    LatencyStratum,
    _buckets,
    _rank_ratios,
    _tail,
    faster_than_evidence,
    slower_evidence,
    tail_strata,
)

BOUNDS_MS = (10.0, 20.0, 40.0, 80.0)
FINE_MS = latency_bounds_ms()
MIXED = LatencyStratum(candidate=(0, 5, 20, 10, 5), live=(5, 20, 60, 30, 5))
SLOWER = LatencyStratum(candidate=(1, 2, 3, 4, 5), live=(10, 8, 6, 4, 2))
EMPTY = [
    LatencyStratum(candidate=(0,) * 5, live=(5, 20, 60, 30, 5)),
    LatencyStratum(candidate=(0, 5, 20, 10, 5), live=(0,) * 5),
]


def histogram(latencies_ms: np.ndarray) -> tuple[int, ...]:
    buckets = np.searchsorted(FINE_MS, latencies_ms)
    return tuple(np.bincount(buckets, minlength=len(FINE_MS) + 1).tolist())


def lognormal(rng: np.random.Generator, median_ms: float, size: int, sigma: float = 0.7) -> np.ndarray:
    return median_ms * np.exp(rng.normal(0.0, sigma, size))


def by_hand(candidate: list[float], live: list[float]) -> float:
    both = [c + n for c, n in zip(candidate, live, strict=True)]
    total, share = sum(both), sum(candidate) / sum(both)
    scores = [(sum(both[:i]) + count / 2) / total - 0.5 for i, count in enumerate(both)]
    pay = 0.0
    for tilt, log_weight in zip(TILTS, LOG_WEIGHTS, strict=True):
        gained = tilt * sum(c * s for c, s in zip(candidate, scores, strict=True))
        expected = sum(n * math.log(1 - share + share * math.exp(tilt * s)) for n, s in zip(both, scores, strict=True))
        pay += math.exp(log_weight + gained - expected * (total + 2) / (total - 1))
    return math.log(pay)


def test_evidence_is_the_mean_pay_of_ranks_over_all_tilts() -> None:
    candidate, live = list(SLOWER.candidate), list(SLOWER.live)
    assert slower_evidence([SLOWER], BOUNDS_MS) == pytest.approx(by_hand(candidate, live), rel=1e-9)
    assert faster_than_evidence([SLOWER], BOUNDS_MS, 1.0) == pytest.approx(
        by_hand(candidate[::-1], live[::-1]), rel=1e-9
    )
    # twice as slow: every answer of the live version moves up one bucket, save those below the first bound
    assert slower_evidence([SLOWER], BOUNDS_MS, 2.0) == pytest.approx(by_hand(candidate, [10, 0, 8, 6, 6]), rel=1e-9)
    assert slower_evidence([SLOWER], BOUNDS_MS, 0.5) == pytest.approx(by_hand(candidate, [18, 6, 4, 0, 2]), rel=1e-9)
    # the square root of two: half of each bucket moves up
    assert slower_evidence([SLOWER], BOUNDS_MS, math.sqrt(2)) == pytest.approx(
        by_hand(candidate, [10, 4, 7, 5, 4]), rel=1e-9
    )


def test_evidence_in_figures() -> None:
    assert slower_evidence([MIXED, SLOWER], BOUNDS_MS) == pytest.approx(2.361319106729887)
    assert slower_evidence([MIXED], BOUNDS_MS, 2.0) == pytest.approx(-2.065308749193425)
    assert faster_than_evidence([MIXED, SLOWER], BOUNDS_MS, 1.0) == pytest.approx(-1.9639211825519614)
    assert faster_than_evidence([MIXED], BOUNDS_MS, 1.5) == pytest.approx(0.3225399200501765)


@pytest.mark.parametrize("empty", EMPTY)
def test_a_stratum_without_answers_of_both_sides_changes_nothing(empty: LatencyStratum) -> None:
    assert not empty.compares
    assert slower_evidence([empty], BOUNDS_MS) == pytest.approx(0.0, abs=1e-12)
    assert slower_evidence([empty, MIXED, SLOWER], BOUNDS_MS) == slower_evidence([MIXED, SLOWER], BOUNDS_MS)
    assert tail_strata([empty], BOUNDS_MS) == []
    assert LatencyStratum(candidate=(1,), live=(1,)).compares


def test_versions_that_share_one_bucket_differ_in_nothing() -> None:
    constant = LatencyStratum(candidate=(0, 0, 300, 0, 0), live=(0, 0, 700, 0, 0))
    assert slower_evidence([constant], BOUNDS_MS) == pytest.approx(0.0, abs=1e-9)
    assert tail_strata([constant], BOUNDS_MS) == [
        Stratum(candidate=Share(bad=0.0, total=300.0), live=Share(bad=0.0, total=700.0))
    ]


counts = st.lists(st.integers(0, 500), min_size=5, max_size=5).map(tuple)


@given(counts.filter(lambda c: sum(c[:-1]) > 0), counts.filter(any))
@settings(max_examples=60, deadline=None)
def test_a_slower_answer_of_the_candidate_is_no_evidence_of_speed(
    candidate: tuple[int, ...], live: tuple[int, ...]
) -> None:
    first = next(i for i, count in enumerate(candidate) if count)
    later = list(candidate)
    later[first] -= 1
    later[-1] += 1
    fast, slow = LatencyStratum(candidate=candidate, live=live), LatencyStratum(candidate=tuple(later), live=live)
    small = 0.02  # the ranks of ties move too
    assert slower_evidence([slow], BOUNDS_MS) >= slower_evidence([fast], BOUNDS_MS) - small
    assert faster_than_evidence([slow], BOUNDS_MS, 1.0) <= faster_than_evidence([fast], BOUNDS_MS, 1.0) + small


@given(st.lists(st.builds(LatencyStratum, candidate=counts, live=counts), min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_the_order_of_strata_is_irrelevant(strata: list[LatencyStratum]) -> None:
    strata = [s for s in strata if s.compares]
    assert slower_evidence(strata[::-1], BOUNDS_MS, 1.2) == pytest.approx(
        slower_evidence(strata, BOUNDS_MS, 1.2), rel=1e-9, abs=1e-9
    )


def test_large_counts_stay_finite() -> None:
    large = LatencyStratum(candidate=(0, 0, 0, 0, 10**7), live=(10**7, 0, 0, 0, 0))
    assert 1e5 < slower_evidence([large], BOUNDS_MS) < math.inf
    assert -math.inf < faster_than_evidence([large], BOUNDS_MS, 1.25) < -1e4


def test_the_tail_is_what_lies_above_the_quantile_of_both_versions_together() -> None:
    both = LatencyStratum(candidate=(50, 44, 0, 4, 2), live=(50, 46, 1, 2, 1))
    # 100, 190, 191, 197, 200 answers up to each bound: 95 % are reached by the second bucket, exactly
    assert tail_strata([both], BOUNDS_MS) == [
        Stratum(candidate=Share(bad=6.0, total=100.0), live=Share(bad=4.0, total=100.0))
    ]
    assert tail_strata([both], BOUNDS_MS, 0.951) == [
        Stratum(candidate=Share(bad=6.0, total=100.0), live=Share(bad=3.0, total=100.0))
    ]
    assert tail_strata([both], BOUNDS_MS, share=0.5) == [
        Stratum(candidate=Share(bad=50.0, total=100.0), live=Share(bad=50.0, total=100.0))
    ]
    # the live version's answers at half their speed: 50, 0, 46, 1, 3, together 100, 144, 190, 195, 200
    assert tail_strata([both], BOUNDS_MS, factor=2.0) == [
        Stratum(candidate=Share(bad=6.0, total=100.0), live=Share(bad=4.0, total=100.0))
    ]
    assert tail_strata([both, SLOWER], BOUNDS_MS)[1].candidate == Share(bad=0.0, total=15.0)


def test_a_version_that_is_slow_for_one_user_in_ten_is_seen_in_the_tail_alone() -> None:
    rng = np.random.default_rng(7)
    candidate = np.concatenate([lognormal(rng, 20, 900), lognormal(rng, 200, 100)])
    strata = [LatencyStratum(candidate=histogram(candidate), live=histogram(lognormal(rng, 20, 1000)))]
    assert reaches(excess_evidence(tail_strata(strata, FINE_MS)), 0.0005)
    assert not reaches(slower_evidence(strata, FINE_MS), 0.0005)


def test_a_candidate_half_as_slow_again_is_seen_after_four_hundred_answers() -> None:
    rng = np.random.default_rng(8)
    strata = [
        LatencyStratum(candidate=histogram(lognormal(rng, 30, 400)), live=histogram(lognormal(rng, 20, 400)))
        for _ in range(20)
    ]
    assert all(reaches(slower_evidence([stratum], FINE_MS), 0.0005) for stratum in strata)
    assert not any(reaches(slower_evidence([stratum], FINE_MS, 1.5), 0.0005) for stratum in strata)


def test_an_equal_candidate_is_shown_to_be_within_a_quarter() -> None:
    rng = np.random.default_rng(9)
    strata = [
        LatencyStratum(candidate=histogram(lognormal(rng, 20, 600)), live=histogram(lognormal(rng, 20, 600)))
        for _ in range(20)
    ]
    assert all(reaches(faster_than_evidence([stratum], FINE_MS, 1.25), 0.05) for stratum in strata)
    assert not any(reaches(faster_than_evidence([stratum], FINE_MS, 1.0), 0.05) for stratum in strata)


@pytest.mark.parametrize("factor", [1.0, 1.25])
def test_equal_versions_are_rarely_taken_for_different_ones_at_any_look(factor: float) -> None:
    """80 steps at 25 %, looked at 8 times each: at alpha 0.05 no more than 5 % fail or pass wrongly."""
    rng = np.random.default_rng(10)
    wrong = dict.fromkeys(("slower", "faster", "tail", "tail within"), 0)
    for _ in range(80):
        reached = dict.fromkeys(wrong, -math.inf)
        arrived = np.geomspace(8, 800, 8).astype(int)
        on_candidate = rng.random(800) < 0.25
        latencies = lognormal(rng, 20, 800) * np.where(on_candidate, factor, 1.0)
        for look in arrived:
            mine, seen = on_candidate[:look], latencies[:look]
            strata = [LatencyStratum(candidate=histogram(seen[mine]), live=histogram(seen[~mine]))]
            tail = tail_strata(strata, FINE_MS, factor=factor)
            figures = {
                "slower": slower_evidence(strata, FINE_MS, factor),
                "faster": faster_than_evidence(strata, FINE_MS, factor),
                "tail": excess_evidence(tail),
                "tail within": excess_evidence([s.swapped() for s in tail]),
            }
            reached = {name: max(reached[name], log_e) for name, log_e in figures.items()}
        for name, log_e in reached.items():
            wrong[name] += reaches(log_e, 0.05)
    assert max(wrong.values()) <= 0.05 * 80, wrong


def test_buckets_that_do_not_match_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"^latency buckets of the two versions differ, got 2 and 1, expected equal numbers$"
    ):
        LatencyStratum(candidate=(1, 2), live=(1,))
    with pytest.raises(InvalidInput, match=r"^latency count is negative, got -2, expected >= 0$"):
        LatencyStratum(candidate=(1, -1), live=(1, -2))
    with pytest.raises(InvalidInput, match=r"^latency counts do not fit their bounds, got 5, expected 4$"):
        slower_evidence([MIXED], (1.0, 2.0, 3.0))
    with pytest.raises(InvalidInput, match="latency counts do not fit their bounds"):
        tail_strata(EMPTY, (1.0, 2.0, 3.0))


@pytest.mark.parametrize("bounds_ms", [(), (0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_above_zero_are_refused(bounds_ms: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"^latency bounds are not usable, got .*, expected rising, > 0$"):
        slower_evidence([], bounds_ms)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_a_factor_is_a_positive_number(factor: float) -> None:
    with pytest.raises(InvalidInput, match=r"^factor of a latency is out of range, got .*, expected > 0$"):
        faster_than_evidence([], BOUNDS_MS, factor)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, math.nan])
def test_the_tail_begins_between_all_and_nothing(share: float) -> None:
    message = r"^share of fast answers is out of range, got .*, expected more than 0, less than 1$"
    with pytest.raises(InvalidInput, match=message):
        tail_strata([], BOUNDS_MS, share)


@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=4), st.sampled_from([1.0, 1.25, 2.0]))
@settings(max_examples=40, deadline=None)
def test_what_is_remembered_of_a_stratum_is_what_it_says(
    sides: list[tuple[tuple[int, ...], tuple[int, ...]]], factor: float
) -> None:
    def asked() -> tuple[float, float, list[Stratum]]:
        strata = [LatencyStratum(candidate=ours, live=theirs) for ours, theirs in sides]
        return (
            slower_evidence(strata, BOUNDS_MS, factor),
            faster_than_evidence(strata, BOUNDS_MS, factor),
            tail_strata(strata, BOUNDS_MS, factor=factor),
        )

    for remembered in (_rank_ratios, _tail, _buckets):
        remembered.cache_clear()
    first = asked()
    assert asked() == first
    assert _rank_ratios.cache_info().currsize <= 2 * len(sides)


def test_equal_counts_under_other_bounds_are_another_stratum() -> None:
    wider = tuple(3.0**step * bound for step, bound in enumerate(BOUNDS_MS))
    assert slower_evidence([SLOWER], BOUNDS_MS, 1.5) != slower_evidence([SLOWER], wider, 1.5)
    assert hash(replace(SLOWER)) == hash(SLOWER)
    assert replace(SLOWER) == SLOWER != MIXED
