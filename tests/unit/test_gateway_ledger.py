"""Percentiles read from the buckets are within 5 %, endings are counted once, and a request is one sample."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.counters import ENDINGS, latency_bounds_ms, parse_snapshot, percentile_ms
from serving.gateway.ledger import BackendCounters, Ledger, Tally

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
    counters = BackendCounters()
    for latency_ms in latencies_ms:
        counters.users.timed(latency_ms)
    exact = sorted(latencies_ms)[max(1, math.ceil(share * len(latencies_ms))) - 1]
    assert counters.read().percentile_ms(share) == pytest.approx(exact, rel=0.05)


def test_an_answer_at_a_bound_counts_below_it_and_a_very_late_one_in_the_open_bucket() -> None:
    tally = Tally()
    tally.timed(BOUNDS[3])
    tally.timed(10 * BOUNDS[-1])
    assert len(tally.latencies) == len(BOUNDS) + 1
    assert tally.latencies[3] == 1
    assert tally.latencies[-1] == 1
    assert percentile_ms(BOUNDS, tally.latencies, 1.0) == BOUNDS[-1]


def test_without_answers_there_is_no_percentile() -> None:
    assert percentile_ms(BOUNDS, [0] * (len(BOUNDS) + 1), 0.95) is None


class Waiting:
    def __init__(self, *, overdue: bool) -> None:
        self._overdue = overdue

    def is_overdue(self) -> bool:
        return self._overdue


def test_an_agent_reads_what_the_gateway_counted() -> None:
    ledger = Ledger()
    counters = ledger.counters("m", "rel-1")
    for index, name in enumerate(ENDINGS):
        for _ in range(index):
            counters.users.ended(name)
    counters.synthetic.ended("answered")
    counters.synthetic.timed(1.0)
    counters.in_flight |= {Waiting(overdue=True), Waiting(overdue=False)}
    counters.compared(0.5)
    counters.labelled(1.0)
    counters.labelled(0.25)
    counters.paired(1.0, 0.25)
    counters.paired(0.0, 0.5)
    counters.ejections = 2
    document = json.loads(json.dumps(ledger.to_json("m", routed=["rel-2"])))
    assert (document["model"], document["backends"]["rel-1"]["ejections"]) == ("m", 2)
    assert all("bounds_ms" not in backend for backend in document["backends"].values())
    read = parse_snapshot(document)
    assert read.boot_id == ledger.boot_id
    assert read.of("rel-1") == counters.read()
    assert read.of("rel-2").users.finished == 0
    found = read.of("rel-1")
    assert [getattr(found.users, name) for name in ENDINGS] == list(range(len(ENDINGS)))
    assert (found.synthetic.answered, sum(found.synthetic.latencies), sum(found.users.latencies)) == (1, 1, 0)
    assert (found.in_flight, found.overdue) == (2, 1)
    assert (found.compared, found.agreed, found.labelled, found.correct) == (1, 0.5, 2, 1.25)
    assert (found.pairs, found.won, found.lost) == (2, 0.75, 0.5)


def test_endings_are_told_by_model_and_backend_for_prometheus() -> None:
    ledger = Ledger()
    ledger.counters("m", "a").users.ended("late")
    ledger.counters("m", "a").synthetic.ended("late")
    assert ledger.endings()["m", "a"] == {**dict.fromkeys(ENDINGS, 0), "late": 2}


def test_counters_outlive_a_route_but_not_without_bound() -> None:
    ledger = Ledger()
    for index in range(200):
        ledger.counters("m", f"rel-{index}").users.ended("failed")
    ledger.counters("m", "rel-1").in_flight.add(Waiting(overdue=False))
    ledger.retain("m", {"rel-0"})
    kept = ledger.snapshot("m").backends
    assert len(kept) == 64
    assert {"rel-0", "rel-1", "rel-199"} <= set(kept)
    assert Ledger().boot_id != ledger.boot_id
