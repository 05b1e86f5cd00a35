"""What a promotion has counted: sums over steps and regions, and windows that travel between agents."""

from dataclasses import replace

import pytest

from serving.counters import ENDINGS, Counters, Outcomes
from serving.regions.deciding.evidence import (
    Scores,
    Window,
    added,
    has_outcome,
    of_region,
    side_by_side,
    summed,
)
from tests.fakes.counted import BOUNDS_MS, counters, outcomes

NUMBERED = Outcomes(**{name: number for number, name in enumerate(ENDINGS, 1)}, latencies=(1, 2))
"""Every ending has a count of its own: 1, 2, 3 …"""
FIRST = Counters(
    users=NUMBERED,
    synthetic=replace(NUMBERED, answered=50, latencies=(3, 4)),
    in_flight=1,
    overdue=2,
    compared=3,
    agreed=4.5,
    labelled=5,
    correct=6.5,
    pairs=7,
    won=8.5,
    lost=9.5,
    bounds_ms=(10.0,),
)
SECOND = Counters(
    users=replace(NUMBERED, answered=100, latencies=(10, 20)),
    synthetic=replace(NUMBERED, answered=200, latencies=(30, 40)),
    in_flight=10,
    overdue=20,
    compared=30,
    agreed=40.0,
    labelled=50,
    correct=60.0,
    pairs=70,
    won=80.0,
    lost=90.0,
    bounds_ms=(10.0,),
)


def window(**changes: object) -> Window:
    return replace(Window(region="here", percent=5, candidate=FIRST, live=SECOND), **changes)


def test_sums_add_and_what_is_under_way_is_the_later_reading() -> None:
    doubled = {name: 2 * number for number, name in enumerate(ENDINGS, 1)}
    assert added(FIRST, SECOND) == Counters(
        users=Outcomes(**{**doubled, "answered": 101}, latencies=(11, 22)),
        synthetic=Outcomes(**{**doubled, "answered": 250}, latencies=(33, 44)),
        in_flight=10,
        overdue=20,
        compared=33,
        agreed=44.5,
        labelled=55,
        correct=66.5,
        pairs=77,
        won=88.5,
        lost=99.5,
        bounds_ms=(10.0,),
    )


def test_counts_without_latencies_take_those_of_the_other() -> None:
    assert added(Counters(), FIRST).bounds_ms == (10.0,)
    assert added(FIRST, Counters()).bounds_ms == (10.0,)
    assert added(FIRST, replace(Counters(), bounds_ms=(11.0,))).bounds_ms == (11.0,)
    assert added(FIRST, Counters()).users.latencies == (1, 2)


def test_latencies_are_summed_bucket_by_bucket() -> None:
    assert summed([(1, 2), (), (3, 4), (5, 6)]) == (9, 12)
    assert summed([(), (1, 2)]) == (1, 2)
    assert summed([()]) == ()
    assert summed([]) == ()
    with pytest.raises(ValueError, match="shorter"):
        summed([(1, 2), (3,)])


def test_an_outcome_is_what_has_finished_or_hangs() -> None:
    assert has_outcome(FIRST) == sum(range(1, 8)) + 2


def test_windows_are_found_by_region() -> None:
    here, there = window(), window(region="there")
    assert of_region([here, there, here], "here") == [here, here]


def test_only_windows_in_which_both_answered_are_side_by_side() -> None:
    both, recorded, alone = window(), window(recorded=True), window(live=None)
    assert side_by_side([both, recorded, alone, replace(alone, recorded=True)]) == [both]


def test_scores_add_up() -> None:
    assert (Scores().count, Scores().total) == (0, 0.0)
    assert Scores(count=2, total=1.0).plus(iter([0.5, 0.25])) == Scores(count=4, total=1.75)


def test_a_new_window_has_no_scores_and_counts_users_alone() -> None:
    new = window()
    assert (new.scores, new.replays_count, new.recorded) == (Scores(), False, False)


def test_replays_are_counted_among_users_only_where_they_count() -> None:
    assert window().counted == window()
    counted = window(replays_count=True).counted
    assert counted.live is not None
    assert (counted.candidate.users.answered, counted.live.users.answered) == (51, 300)
    assert (counted.candidate.users.latencies, counted.live.users.latencies) == ((4, 6), (40, 60))
    assert counted.candidate.synthetic == counted.live.synthetic == Outcomes()
    assert (counted.candidate.compared, counted.region, counted.replays_count) == (3, "here", True)
    assert window(replays_count=True, live=None).counted.live is None


# As JSON


def full(**changes: object) -> Window:
    candidate = counters(answered=9, late=1, in_flight=3, overdue=2, compared=3, agreed=2.5, pairs=2, won=0.5, lost=1.5)
    made = Window(
        region="here",
        percent=25,
        candidate=replace(candidate, synthetic=outcomes(answered=4, latency_ms=50.0)),
        live=counters(answered=2, labelled=4, correct=3.5),
        scores=Scores(count=2, total=1.5),
        replays_count=True,
        recorded=True,
    )
    return replace(made, **changes)


@pytest.mark.parametrize("sent", [full(), full(live=None), full(replays_count=False), full(recorded=False)])
def test_a_window_survives_json(sent: Window) -> None:
    assert Window.from_json(sent.to_json()) == sent


def test_only_used_buckets_travel() -> None:
    document = full(candidate=counters(answered=3, spread=0.0, latency_ms=10.0)).to_json()
    latencies = document["candidate"]["users"]["latencies"]
    assert (latencies["buckets"], list(latencies["used"].values())) == (len(BOUNDS_MS) + 1, [3])
    assert document["candidate"]["synthetic"]["latencies"]["used"] == {}
    assert document["candidate"]["users"]["answered"] == 3
    assert set(document) == {"region", "percent", "candidate", "live", "scores", "replays_count", "recorded"}
    assert document["scores"] == {"count": 2, "total": 1.5}


@pytest.mark.parametrize("side", ["users", "synthetic"])
def test_latencies_in_other_buckets_are_left_out_and_the_rest_is_kept(side: str) -> None:
    document = full().to_json()
    document["candidate"][side]["latencies"]["buckets"] += 1
    read = Window.from_json(document)
    assert sum(getattr(read.candidate, side).latencies) == 0
    assert len(getattr(read.candidate, side).latencies) == len(BOUNDS_MS) + 1
    assert (read.candidate.users.answered, read.candidate.synthetic.answered) == (9, 4)
    assert read.candidate.bounds_ms == BOUNDS_MS
