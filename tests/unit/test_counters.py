"""What gateway and agent count: windows, percentiles, JSON."""

import itertools

import pytest

from serving.counters import ENDINGS, Counters, Outcomes, Snapshot, latency_bounds_ms, parse_snapshot, percentile_ms
from serving.errors import BadUpstream
from serving.regions.deciding.evidence import added
from tests.fakes.counted import BOUNDS_MS, counters, outcomes


def test_a_window_is_the_difference_within_one_boot_and_everything_after_another() -> None:
    start = Snapshot(boot_id="a", bounds_ms=BOUNDS_MS, backends={"x": counters(answered=10, failed=1)})
    later = added(start.of("x"), counters(answered=4, failed=2, overdue=1))
    same = Snapshot(boot_id="a", bounds_ms=BOUNDS_MS, backends={"x": later, "y": counters(refused=2)})
    other = Snapshot(boot_id="b", bounds_ms=BOUNDS_MS, backends={"x": counters(answered=4)})
    window = same.since(start)
    assert (window.of("x").users.answered, window.of("x").users.failed, window.of("x").overdue) == (4, 2, 1)
    assert sum(window.of("x").users.latencies) == 4
    assert window.of("y").users.refused == 2
    assert other.since(start).of("x").users.answered == 4
    assert same.since(None) == same
    assert same.of("z") == Counters(bounds_ms=BOUNDS_MS)


def test_faults_are_all_endings_but_an_answer_and_a_refusal() -> None:
    each = Outcomes(**dict.fromkeys(ENDINGS, 1))
    assert ENDINGS == ("answered", "refused", "failed", "overloaded", "late", "abandoned", "unknown")
    assert (each.finished, each.faults) == (7, 5)


def test_a_snapshot_survives_json_and_refuses_rubbish() -> None:
    full = counters(answered=9, late=1, compared=3, agreed=2.5, labelled=4, correct=3.25, pairs=2, won=0.5, lost=0.25)
    snapshot = Snapshot(boot_id="a", bounds_ms=BOUNDS_MS, backends={"x": full})
    document = snapshot.to_json()
    document["backends"]["x"]["of tomorrow"] = 1
    assert parse_snapshot(document) == snapshot
    short = {**full.to_json(), "users": {**full.users.to_json(), "latencies": [1, 2]}}
    for rubbish in (
        {},
        {"boot_id": "a", "bounds_ms": [], "backends": []},
        {"boot_id": "a", "bounds_ms": [], "backends": {"x": {"users": 1}}},
        {"boot_id": "a", "bounds_ms": list(BOUNDS_MS), "backends": {"x": short}},
    ):
        with pytest.raises(BadUpstream, match="gateway's stats cannot be read"):
            parse_snapshot(rubbish)


def test_percentiles_are_within_five_percent() -> None:
    assert percentile_ms(BOUNDS_MS, outcomes().latencies, 0.95) is None
    even = outcomes(answered=1000, latency_ms=100.0, spread=0.5).latencies
    assert percentile_ms(BOUNDS_MS, even, 0.5) == pytest.approx(100.0, rel=0.05)
    assert percentile_ms(BOUNDS_MS, even, 0.95) == pytest.approx(145.0, rel=0.05)
    assert counters(answered=1000, latency_ms=100.0, spread=0.5).percentile_ms(0.5) == pytest.approx(100.0, rel=0.05)
    assert all(1.0 < b / a < 1.05 for a, b in itertools.pairwise(BOUNDS_MS))
    assert latency_bounds_ms() == BOUNDS_MS
