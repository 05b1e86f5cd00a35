"""How much worse a candidate may still be: exact figures, shape, and how often the bound is wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.regions.deciding.bounds import Share, Stratum, reaches
from serving.regions.deciding.margins import (
    difference_upper,
    estimated_difference,
    paired_difference_upper,
    paired_within_evidence,
    within_evidence,
)


def stratum(candidate_bad: float, candidate_total: float, live_bad: float, live_total: float) -> Stratum:
    return Stratum(
        candidate=Share(bad=candidate_bad, total=candidate_total), live=Share(bad=live_bad, total=live_total)
    )


ONE_SIDED = [stratum(5, 100, 0, 0), stratum(0, 0, 5, 100), stratum(0, 0, 0, 0)]


@st.composite
def strata(draw: st.DrawFn) -> Stratum:
    totals = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    bad = [draw(st.floats(0, 1)) * total for total in totals]
    return stratum(bad[0], totals[0], bad[1], totals[1])


@pytest.mark.parametrize(
    ("counted", "margin", "log_e"),
    [
        ([stratum(0, 500, 0, 500)], 0.01, 3.2180230539265287),
        ([stratum(2, 300, 3, 900), stratum(4, 400, 6, 600)], 0.02, 3.4723082762953736),
        ([stratum(30, 100, 30, 100)], 0.3, 8.369269777016637),
        ([stratum(2.5, 300, 10, 300)], 0.01, 2.5366784414271395),
        ([stratum(950, 1000, 950, 1000)], 0.02, 0.20200137881940708),
        ([stratum(5, 2000, 0, 2000)], 0.01, 5.631727939120568),
        ([stratum(0, 1000, 15, 1000)], 0.01, 18.099020014346504),
        ([stratum(0, 100_000, 0, 100_000)], 0.0005, 45.01126235538392),
        ([], 0.01, 0.0),
    ],
)
def test_evidence_of_a_margin_in_figures(counted: list[Stratum], margin: float, log_e: float) -> None:
    assert within_evidence(counted, margin) == pytest.approx(log_e, rel=1e-9, abs=1e-12)


def test_one_request_pays_one_on_average_where_the_candidate_is_worse_by_the_margin() -> None:
    """Live share 0.2, candidate's 0.5, margin 0.3, half of the traffic each: all four outcomes of a pair."""
    pay = sum(
        0.5 * (0.2 if bad_live else 0.8) * math.exp(within_evidence([stratum(bad_candidate, 1, bad_live, 1)], 0.3))
        for bad_candidate in (0, 1)
        for bad_live in (0, 1)
    )
    assert 0.9 < pay <= 1.0


def test_five_hundred_spotless_requests_of_each_show_one_point_and_four_hundred_do_not() -> None:
    assert difference_upper([stratum(0, 500, 0, 500)], 0.05) < 0.01
    assert difference_upper([stratum(0, 400, 0, 400)], 0.05) > 0.01


@pytest.mark.parametrize(
    ("counted", "alpha", "upper"),
    [
        ([stratum(0, 500, 0, 500)], 0.05, 0.009536009300141344),
        ([stratum(30, 1000, 10, 1000)], 0.05, 0.042030696478353696),
        ([stratum(0, 1000, 1000, 1000)], 0.05, 1.0129990980873921e-05),
        ([stratum(0, 2, 0, 2)], 0.3, 0.5764174928105322),
        ([stratum(1, 1, 0, 1)], 0.05, 1.0),
        ([], 0.05, 1.0),
        (ONE_SIDED, 0.05, 1.0),
    ],
)
def test_the_upper_bound_in_figures(counted: list[Stratum], alpha: float, upper: float) -> None:
    assert difference_upper(counted, alpha) == pytest.approx(upper, rel=1e-12)


@given(st.lists(strata(), min_size=1, max_size=3), st.sampled_from([0.01, 0.05]))
@settings(max_examples=25, deadline=None)
def test_the_bound_is_the_smallest_margin_that_is_refuted(counted: list[Stratum], alpha: float) -> None:
    upper = difference_upper(counted, alpha)
    if upper < 1:
        assert all(reaches(within_evidence(counted, m), alpha) for m in np.linspace(upper, 0.998, 20))
    if 2e-5 < upper < 1:
        assert not reaches(within_evidence(counted, upper * 0.998), alpha)


@given(st.lists(strata(), min_size=1, max_size=3), st.floats(0.001, 0.5))
@settings(max_examples=40, deadline=None)
def test_one_more_bad_event_of_the_candidate_never_raises_the_evidence(counted: list[Stratum], margin: float) -> None:
    first = counted[0]
    more = min(first.candidate.bad + 1, first.candidate.total)
    worse = [stratum(more, first.candidate.total, first.live.bad, first.live.total), *counted[1:]]
    assert within_evidence(worse, margin) <= within_evidence(counted, margin) + 1e-9
    assert within_evidence(counted[::-1], margin) == pytest.approx(within_evidence(counted, margin), abs=1e-7)


@pytest.mark.parametrize("one_sided", ONE_SIDED)
def test_a_stratum_without_answers_of_both_sides_changes_nothing(one_sided: Stratum) -> None:
    alone = [stratum(2, 300, 3, 900)]
    assert within_evidence([*alone, one_sided], 0.01) == within_evidence(alone, 0.01)
    assert estimated_difference([*alone, one_sided]) == estimated_difference(alone)
    assert estimated_difference([one_sided]) is None


def test_large_counts_stay_finite() -> None:
    assert math.isfinite(within_evidence([stratum(1e5, 1e7, 1e5, 1e7)], 0.001))
    assert math.isfinite(within_evidence([stratum(1e7, 1e7, 0, 1e7)], 0.001))
    assert difference_upper([stratum(1e5, 1e7, 1e5, 1e7)], 0.05) < 0.0003


def test_the_estimate_weighs_strata_as_mantel_and_haenszel_do() -> None:
    # weights 1000 * 1000 / 2000 = 500 and 100 * 300 / 400 = 75; differences 0.02 and -1/60
    expected = (500 * 0.02 - 75 / 60) / 575
    assert estimated_difference([stratum(30, 1000, 10, 1000), stratum(0, 100, 5, 300)]) == pytest.approx(expected)
    assert estimated_difference([]) is None


@pytest.mark.parametrize(
    ("lost", "won", "pairs", "margin", "log_e"),
    [
        (20, 20, 1000, 0.02, 3.0539321481498716),
        (0, 0, 500, 0.02, 8.258332348541373),
        (3.5, 30, 200, 0.1, 25.565487474041014),
        (0, 0, 0, 0.02, 0.0),
    ],
)
def test_evidence_of_a_margin_from_pairs_in_figures(
    lost: float, won: float, pairs: float, margin: float, log_e: float
) -> None:
    assert paired_within_evidence(lost, won, pairs, margin) == pytest.approx(log_e, rel=1e-9, abs=1e-12)


def test_a_pair_pays_one_on_average_where_the_candidate_is_worse_by_the_margin() -> None:
    lost, won, margin = 0.25, 0.15, 0.1
    pays = [math.exp(paired_within_evidence(*outcome, 1, margin)) for outcome in ((1, 0), (0, 1), (0, 0))]
    assert lost * pays[0] + won * pays[1] + (1 - lost - won) * pays[2] == pytest.approx(1.0)


def test_the_upper_bound_from_pairs_in_figures() -> None:
    assert paired_difference_upper(20, 20, 1000, 0.05) == pytest.approx(0.01985544581500733, rel=1e-12)
    assert paired_difference_upper(0, 0, 0, 0.05) == 1.0
    assert paired_difference_upper(0, 1000, 1000, 0.05) == pytest.approx(1.0129990980873921e-05)
    assert math.isfinite(paired_within_evidence(1e7, 0, 1e7, 0.02))
    assert paired_difference_upper(1000, 0, 1000, 0.05) == 1.0


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, math.nan])
def test_a_margin_lies_between_zero_and_one(margin: float) -> None:
    message = r"^margin is out of range, got .*, expected more than 0, less than 1$"
    with pytest.raises(InvalidInput, match=message):
        within_evidence([], margin)
    with pytest.raises(InvalidInput, match=message):
        paired_within_evidence(0, 0, 1, margin)


@pytest.mark.parametrize(
    ("lost", "won", "pairs"), [(-1, 0, 1), (0, -1, 1), (1, 1, 1.5), (0, 0, -1), (0, 0, math.inf), (math.nan, 0, 1)]
)
def test_impossible_pairs_are_refused(lost: float, won: float, pairs: float) -> None:
    with pytest.raises(
        InvalidInput, match=r"^pairs are impossible, got .* lost and .* won of .*, expected lost >= 0, "
    ):
        paired_within_evidence(lost, won, pairs, 0.01)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_level_lies_between_zero_and_one(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="alpha is out of range"):
        difference_upper([], alpha)
    with pytest.raises(InvalidInput, match="alpha is out of range"):
        paired_difference_upper(0, 0, 1, alpha)


@pytest.mark.parametrize(("live", "share"), [(0.0, 0.05), (0.001, 0.5), (0.01, 0.25), (0.3, 0.5)])
def test_a_candidate_that_is_worse_by_the_margin_rarely_passes_at_any_look(live: float, share: float) -> None:
    """300 candidates of 2000 requests, looked at 25 times each: at alpha 0.05 no more than 5 % pass."""
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(300):
        arrived = np.diff(np.geomspace(20, 2000 / share, 25).astype(int), prepend=0)
        on_candidate = rng.binomial(arrived, share)
        bad = rng.binomial(on_candidate, live + 0.01).cumsum(), rng.binomial(arrived - on_candidate, live).cumsum()
        totals = on_candidate.cumsum(), (arrived - on_candidate).cumsum()
        looks = zip(bad[0], totals[0], bad[1], totals[1], strict=True)
        passed += any(reaches(within_evidence([stratum(*map(float, look))], 0.01), 0.05) for look in looks)
    assert passed <= 0.05 * 300


def test_an_equal_candidate_passes_one_point_within_fifteen_hundred_requests() -> None:
    rng = np.random.default_rng(6)
    bad = rng.binomial(1500, 0.001, (100, 2))
    passed = sum(difference_upper([stratum(float(c), 1500, float(n), 1500)], 0.05) <= 0.01 for c, n in bad)
    assert passed >= 85
