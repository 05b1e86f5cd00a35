"""Evidence from counts: exact figures, what must never lower it, and how often it is wrong at any of many looks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.regions.deciding.bounds import (
    LOG_WEIGHTS,
    TILTS,
    Share,
    Stratum,
    above_evidence,
    below_evidence,
    excess_evidence,
    reaches,
    tilted,
)


def stratum(candidate_bad: float, candidate_total: float, live_bad: float, live_total: float) -> Stratum:
    return Stratum(
        candidate=Share(bad=candidate_bad, total=candidate_total), live=Share(bad=live_bad, total=live_total)
    )


@st.composite
def strata(draw: st.DrawFn) -> Stratum:
    totals = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    bad = [draw(st.floats(0, 1)) * total for total in totals]
    return stratum(bad[0], totals[0], bad[1], totals[1])


def by_hand(pairs: list[tuple[float, float, float]]) -> float:
    """Of (bad on the candidate, all bad, candidate's share): the sum of the tilts' pays, tilt by tilt."""
    pay = 0.0
    for tilt, log_weight in zip(TILTS, LOG_WEIGHTS, strict=True):
        ratio = math.exp(tilt)
        factors = [ratio**x / (1 - share + share * ratio) ** t for x, t, share in pairs]
        pay += math.exp(log_weight) * math.prod(factors)
    return math.log(pay)


def test_the_prior_is_a_distribution_over_ratios_up_to_a_thousand() -> None:
    assert math.fsum(np.exp(LOG_WEIGHTS)) == pytest.approx(1.0)
    assert TILTS[0] == pytest.approx(0.01)
    assert math.exp(TILTS[-1]) == pytest.approx(1000.0)
    assert len(TILTS) == 64


def test_evidence_is_the_mean_pay_of_all_odds_ratios() -> None:
    assert excess_evidence([stratum(12, 500, 4, 1500), stratum(5.5, 300, 2.25, 700)]) == pytest.approx(
        by_hand([(12, 16, 0.25), (5.5, 7.75, 0.3)])
    )
    assert above_evidence(4, 100, 0.01) == pytest.approx(by_hand([(4, 100, 0.01)]))


@pytest.mark.parametrize(
    ("counted", "log_e"),
    [
        ([stratum(3, 60, 0, 1140)], 7.751877148412797),
        ([stratum(12, 500, 0, 500)], 7.497187583347403),
        ([stratum(12, 500, 4, 1500), stratum(5.5, 300, 2.25, 700)], 9.464657772893746),
        ([stratum(1, 500, 9, 500)], -1.8749718824179202),
        ([stratum(1.2e5, 1e7, 1e5, 1e7)], 905.3726699465167),
        ([stratum(0, 1e7, 0, 1e7)], 0.0),
        ([], 0.0),
    ],
)
def test_evidence_of_an_excess_in_figures(counted: list[Stratum], log_e: float) -> None:
    assert excess_evidence(counted) == pytest.approx(log_e, rel=1e-9, abs=1e-12)


def test_three_errors_all_on_a_candidate_with_a_twentieth_of_the_traffic_stop_it_and_two_do_not() -> None:
    assert reaches(excess_evidence([stratum(3, 60, 0, 1140)]), 0.0005)
    assert not reaches(excess_evidence([stratum(2, 60, 0, 1140)]), 0.0005)


@pytest.mark.parametrize("one_sided", [stratum(5, 100, 0, 0), stratum(0, 0, 5, 100), stratum(0, 0, 0, 0)])
def test_a_stratum_without_answers_of_both_sides_changes_nothing(one_sided: Stratum) -> None:
    assert not one_sided.compares
    assert excess_evidence([one_sided]) == pytest.approx(0.0, abs=1e-12)
    assert excess_evidence([stratum(3, 60, 1, 60), one_sided]) == excess_evidence([stratum(3, 60, 1, 60)])
    assert stratum(0, 0.5, 0, 0.5).compares


def test_a_stratum_knows_its_share_and_its_mirror_image() -> None:
    assert stratum(1, 30, 2, 90).candidate_share == 0.25
    assert stratum(1, 30, 2, 90).swapped() == stratum(2, 90, 1, 30)


@given(st.lists(strata(), min_size=1, max_size=4), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_one_more_bad_event_of_the_candidate_never_lowers_the_evidence(counted: list[Stratum], mass: float) -> None:
    first = counted[0]
    more = min(first.candidate.bad + mass, first.candidate.total)
    worse = [stratum(more, first.candidate.total, first.live.bad, first.live.total), *counted[1:]]
    assert excess_evidence(worse) >= excess_evidence(counted) - 1e-9


@given(st.lists(strata(), min_size=2, max_size=4))
@settings(max_examples=40, deadline=None)
def test_the_order_of_strata_is_irrelevant(counted: list[Stratum]) -> None:
    assert excess_evidence(counted[::-1]) == pytest.approx(excess_evidence(counted), rel=1e-9, abs=1e-9)


@given(strata(), st.floats(1.5, 10))
@settings(max_examples=40, deadline=None)
def test_only_the_ratio_of_the_traffic_counts_beside_the_bad_events(counted: Stratum, times: float) -> None:
    diluted = stratum(
        counted.candidate.bad, times * counted.candidate.total, counted.live.bad, times * counted.live.total
    )
    assert excess_evidence([diluted]) == pytest.approx(excess_evidence([counted]), rel=1e-9, abs=1e-9)


def test_a_share_is_compared_with_an_absolute_bound_on_its_own_side() -> None:
    assert above_evidence(20, 1000, 0.01) == pytest.approx(1.6453704919525438)
    assert below_evidence(425, 500, 0.9) == pytest.approx(3.4180937179115602)
    assert above_evidence(9, 1000, 0.01) < 0
    assert below_evidence(455, 500, 0.9) < 0
    assert above_evidence(0, 0, 0.01) == pytest.approx(0.0, abs=1e-12)
    assert below_evidence(8e6, 1e7, 0.9) == pytest.approx(443_908.0, rel=0.01)


def test_bounds_of_zero_and_one_have_an_answer() -> None:
    assert above_evidence(2, 10, 0.0) == pytest.approx(11.451133799297603)
    assert above_evidence(0, 10, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert above_evidence(10, 10, 1.0) == pytest.approx(0.0, abs=1e-12)
    assert below_evidence(8, 10, 1.0) == pytest.approx(11.451133799297603)


def test_evidence_reaches_a_level_at_its_reciprocal() -> None:
    assert reaches(math.log(20) + 1e-12, 0.05)
    assert reaches(-math.log(0.05), 0.05)
    assert not reaches(math.log(20) - 1e-9, 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_level_lies_between_zero_and_one(alpha: float) -> None:
    with pytest.raises(InvalidInput, match=r"^alpha is out of range, got .*, expected more than 0, less than 1$"):
        reaches(1.0, alpha)


@pytest.mark.parametrize(
    ("bad", "total"), [(2.0, 1.0), (-0.1, 1.0), (0.0, -1.0), (math.nan, 1.0), (0.0, math.nan), (1.0, math.inf)]
)
def test_an_impossible_share_is_refused(bad: float, total: float) -> None:
    with pytest.raises(InvalidInput, match=r"^share is impossible, got .* of .*, expected 0 <= bad <= total$"):
        Share(bad=bad, total=total)
    with pytest.raises(InvalidInput, match="share is impossible"):
        above_evidence(bad, total, 0.5)


@pytest.mark.parametrize("bound", [-0.01, 1.01, math.nan])
def test_a_bound_that_is_no_share_is_refused(bound: float) -> None:
    with pytest.raises(InvalidInput, match=r"^bound of a share is out of range, got .*, expected 0 to 1$"):
        above_evidence(1, 2, bound)


def test_scores_that_come_from_the_answers_themselves_pay_one_at_most_on_average() -> None:
    """All ways to divide 8 answers with scores of their ranks between two versions."""
    scores = (np.arange(8) + 0.5) / 8 - 0.5
    for on_candidate in range(1, 8):
        divisions = [np.array([i >> k & 1 for k in range(8)]) for i in range(256) if i.bit_count() == on_candidate]
        pays = [np.exp(tilted(np.float64(d), np.float64(1 - d), scores)) for d in divisions]
        assert np.mean(pays, axis=0).max() <= 1.0
        assert np.mean(pays, axis=0).min() > 0.05


def test_scored_answers_in_figures() -> None:
    pays = tilted(np.array([1.0, 4.0]), np.array([9.0, 6.0]), np.array([-0.25, 0.25]))
    expected = [
        tilt * 0.75
        - 22 / 19 * 10 * (math.log(0.75 + 0.25 * math.exp(-tilt / 4)) + math.log(0.75 + 0.25 * math.exp(tilt / 4)))
        for tilt in TILTS
    ]
    assert pays == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("rate", "seed"), [(0.002, 1), (0.02, 2), (0.3, 3)])
def test_equal_versions_are_rarely_taken_for_different_ones_at_any_look(rate: float, seed: int) -> None:
    """200 promotions over steps of 5, 25 and 50 %, looked at 12 times each: at alpha 0.05 no more than 5 % fail."""
    rng = np.random.default_rng(seed)
    failed = sum(reaches(max(looked_at(rng, candidate=rate, live=rate)), 0.05) for _ in range(200))
    assert failed <= 0.05 * 200


def test_two_points_more_errors_are_seen_within_one_promotion() -> None:
    rng = np.random.default_rng(4)
    seen = sum(reaches(max(looked_at(rng, candidate=0.02, live=0.0)), 0.0005) for _ in range(100))
    assert seen >= 95


def looked_at(rng: np.random.Generator, *, candidate: float, live: float) -> list[float]:
    """The evidence at every look at a promotion with 300 requests of the candidate per step."""
    before: list[Stratum] = []
    evidence = []
    for share in (0.05, 0.25, 0.5):
        arrived = np.diff(np.geomspace(8, 300 / share, 12).astype(int), prepend=0)
        on_candidate = rng.binomial(arrived, share)
        bad = rng.binomial(on_candidate, candidate).cumsum(), rng.binomial(arrived - on_candidate, live).cumsum()
        totals = on_candidate.cumsum(), (arrived - on_candidate).cumsum()
        looks = [stratum(*map(float, figures)) for figures in zip(bad[0], totals[0], bad[1], totals[1], strict=True)]
        evidence += [excess_evidence([*before, look]) for look in looks]
        before.append(looks[-1])
    return evidence
