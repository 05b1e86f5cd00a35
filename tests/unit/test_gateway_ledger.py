"""Percentiles read from the buckets are within 5 %, and counters only grow."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.ledger import BackendCounters, Ledger, latency_bounds_ms, percentile_ms

BOUNDS = latency_bounds_ms()


def test_bounds_grow_by_less_than_5_percent_from_a_tenth_of_a_millisecond_to_two_minutes() -> None:
    assert BOUNDS[0] == 0.1
    assert BOUNDS[-1] >= 120_000
    assert all(1 < upper / lower < 1.05 for lower, upper in itertools.pairwise(BOUNDS))


@given(
    st.lists(st.floats(0.1, 120_000), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]),
)
def test_a_percentile_is_within_5_percent_of_the_exact_one(latencies_ms: list[float], share: float) -> None:
    counters = BackendCounters(bounds_ms=BOUNDS)
    for latency_ms in latencies_ms:
        counters.answered(latency_ms)
    exact = sorted(latencies_ms)[max(1, math.ceil(share * len(latencies_ms))) - 1]
    assert counters.percentile_ms(share) == pytest.approx(exact, rel=0.05)


def test_an_answer_at_a_bound_counts_below_it_and_a_very_late_one_in_the_open_bucket() -> None:
    counters = BackendCounters(bounds_ms=BOUNDS)
    counters.answered(BOUNDS[3])
    counters.answered(10 * BOUNDS[-1])
    assert len(counters.counts) == len(BOUNDS) + 1
    assert counters.counts[3] == 1
    assert counters.counts[-1] == 1
    assert counters.percentile_ms(1.0) == BOUNDS[-1]


def test_without_answers_there_is_no_percentile() -> None:
    assert percentile_ms(BOUNDS, [0] * (len(BOUNDS) + 1), 0.95) is None


def test_failures_have_no_latency() -> None:
    counters = BackendCounters(bounds_ms=BOUNDS)
    counters.began(synthetic=True)
    counters.failed()
    counters.ended()
    document = counters.to_json()
    assert (document["requests"], document["synthetic"], document["errors"], document["in_flight"]) == (1, 1, 1, 0)
    assert sum(document["latency"]["counts"]) == 0


def test_counters_outlive_a_route_but_not_without_bound() -> None:
    ledger = Ledger()
    for index in range(200):
        ledger.counters("m", f"rel-{index}").failed()
    ledger.counters("m", "rel-1").began(synthetic=False)
    ledger.retain("m", {"rel-0"})
    kept = ledger.to_json("m")["backends"]
    assert len(kept) == 64
    assert {"rel-0", "rel-1", "rel-199"} <= set(kept)
    assert Ledger().boot_id != ledger.boot_id
