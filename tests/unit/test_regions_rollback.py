"""What a region's rollback does next, what an order may ask for, and when a standby ends."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Counters, Outcomes, Snapshot
from serving.errors import Conflict, InvalidInput, NotFound
from serving.regions.deciding.rollback_order import (
    RollbackOrder,
    newest_release,
    note_part,
    note_refusal,
    read_asked,
    supersede,
    unasked,
    without_region,
)
from serving.regions.deciding.rollback_state import (
    FAILED,
    LIVE,
    QUEUED,
    STARTING,
    SWITCHING,
    Act,
    Keep,
    Rollback,
    Seen,
    decide_rollback,
    find_target,
    overrule_rollback,
    read_region_order,
    read_rollback,
    weights_in_force,
)
from serving.regions.deciding.rollout_state import Server
from serving.regions.registry.registry import LiveModel
from serving.regions.servers.launcher import ServerStatus
from serving.regions.servers.standby import end_of_standby

ORDER = {"schema_version": 1, "model": "m", "release": None, "bad": "rel-2", "reason": "slow", "supersedes": []}
LIVE_NOW = LiveModel(model="m", release_id="rel-2", previous_release_id="rel-1", reason=None)


def make_rollback(**changes: Any) -> Rollback:
    made = Rollback(
        id="b", region="here", model="m", order=ORDER, reason="slow", release="rel-1", replaced=["rel-2"], drain_s=5.0
    )
    return replace(made, **changes)


def kept(action: Act | Keep) -> Keep:
    assert isinstance(action, Keep)
    # Only the document is carried on from one step to the next.
    return replace(action, rollback=read_rollback(action.rollback.to_json()))


def in_flight(count: int) -> Snapshot:
    return Snapshot(boot_id="b", backends={"rel-2@here": Counters(users=Outcomes(answered=9), in_flight=count)})


def test_a_warm_version_is_live_in_one_step() -> None:
    switched = kept(decide_rollback(make_rollback(), Seen(target=Server.READY, before_target="rel-0"), 1.0))
    assert (switched.rollback.state, switched.rollback.warm) == (SWITCHING, True)
    assert switched.live == LiveModel(model="m", release_id="rel-1", previous_release_id="rel-0", reason=None)
    assert decide_rollback(switched.rollback, Seen(target=Server.READY), 1.0) is Act.SHIFT_WEIGHTS
    live = weights_in_force(switched.rollback, 2.0)
    assert (live.state, live.finished_at, live.settled) == (LIVE, 2.0, False)


def test_a_cold_version_is_started_first_and_the_bad_one_stays_live_meanwhile() -> None:
    begun = kept(decide_rollback(make_rollback(), Seen(), 1.0))
    assert (begun.rollback.state, begun.live) == (STARTING, None)
    assert decide_rollback(begun.rollback, Seen(), 1.0) is Act.LAUNCH
    assert decide_rollback(begun.rollback, Seen(target=Server.STARTING), 2.0) is Act.WAIT
    switched = kept(decide_rollback(begun.rollback, Seen(target=Server.READY), 3.0))
    assert (switched.rollback.state, switched.rollback.warm) == (SWITCHING, False)


def test_what_was_replaced_is_stopped_once_it_has_answered_or_its_time_is_over() -> None:
    live = make_rollback(state=LIVE, weights_at=10.0)
    assert decide_rollback(live, Seen(stats=in_flight(1)), 11.0) is Act.WAIT
    assert decide_rollback(live, Seen(stats=None), 11.0) is Act.WAIT
    assert decide_rollback(live, Seen(stats=in_flight(0)), 11.0) is Act.STOP_REPLACED
    assert decide_rollback(live, Seen(stats=in_flight(1)), 15.0) is Act.STOP_REPLACED


@pytest.mark.parametrize(
    ("seen", "now", "why"),
    [
        (Seen(target=Server.STARTING, note="exited with 1", degraded=True), 2.0, "exited with 1"),
        (Seen(target=Server.STARTING), 200.0, "not ready within 180 s"),
    ],
)
def test_a_version_that_does_not_start_leaves_the_region_as_it_is(seen: Seen, now: float, why: str) -> None:
    failed = kept(decide_rollback(make_rollback(state=STARTING, starting_at=1.0), seen, now))
    assert (failed.rollback.state, failed.live) == (FAILED, None)
    assert (failed.rollback.failure or "").endswith(why)
    assert decide_rollback(failed.rollback, seen, now) is Act.SHIFT_WEIGHTS
    assert weights_in_force(failed.rollback, now).state == FAILED


def test_a_version_that_is_live_already_only_gets_its_weights() -> None:
    switched = kept(decide_rollback(make_rollback(changed=False, replaced=[]), Seen(target=Server.STARTING), 1.0))
    assert switched.rollback.state == SWITCHING
    live = weights_in_force(switched.rollback, 1.0)
    assert decide_rollback(live, Seen(), 1.0) is Act.STOP_REPLACED


def test_a_newer_rollback_ends_an_older_one() -> None:
    ended = overrule_rollback(make_rollback(), "newer", 3.0)
    assert (ended.state, ended.failure, ended.settled) == (
        FAILED,
        "rollback newer was ordered before this one had ended",
        True,
    )
    live = overrule_rollback(make_rollback(state=LIVE), "newer", 3.0)
    assert (live.state, live.settled) == (LIVE, True)


# Where to go


def target(order: dict[str, Any], live: LiveModel | None = LIVE_NOW, *, ends_rollouts: bool = False) -> str | None:
    been_live = ["rel-0", "rel-1", "rel-2"]
    return find_target(read_region_order(order), live, been_live=been_live, ends_rollouts=ends_rollouts)


def test_without_a_name_a_region_goes_to_what_it_had_before_the_bad_release() -> None:
    assert target(ORDER) == "rel-1"


def test_a_region_that_does_not_serve_the_bad_release_stays() -> None:
    assert target(ORDER | {"bad": "rel-3"}) == "rel-2"


def test_a_release_that_was_live_here_may_be_named() -> None:
    assert target(ORDER | {"release": "rel-0"}) == "rel-0"
    with pytest.raises(Conflict, match="never live in this region, got rel-9, expected one of rel-0, rel-1, rel-2"):
        target(ORDER | {"release": "rel-9"})


def test_the_first_release_cannot_be_left_unless_it_is_only_being_tried() -> None:
    first = replace(LIVE_NOW, previous_release_id=None)
    with pytest.raises(Conflict, match="no version before"):
        target(ORDER, first, ends_rollouts=True)
    assert target(ORDER, None, ends_rollouts=True) is None
    with pytest.raises(NotFound, match="does not run the model"):
        target(ORDER, None)


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"model": 1}, {"release": "../x"}, {"supersedes": None}])
def test_a_malformed_region_order_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read_region_order(ORDER | change)


# The order over all regions


def make_order(**changes: Any) -> RollbackOrder:
    made = RollbackOrder(
        id="b",
        asked={},
        model="m",
        reason="slow",
        release=None,
        bad="rel-2",
        supersedes=[],
        regions=["one", "two"],
        ordered_at=0.0,
    )
    return replace(made, **changes)


def part(order: RollbackOrder, region: str, state: str, *, settled: bool = True) -> dict[str, Any]:
    return unasked(order, region) | {"state": state, "settled": settled}


def test_a_rollback_is_live_when_every_region_is() -> None:
    order = note_part(make_order(), part(make_order(), "one", LIVE), 1.0)
    assert (order.state, order.open) == ("running", True)
    order = note_part(order, part(order, "two", LIVE, settled=False), 2.0)
    assert (order.state, order.finished_at, order.open) == ("live", 2.0, True)
    order = note_part(order, part(order, "two", LIVE), 3.0)
    assert (order.state, order.finished_at, order.open) == ("live", 2.0, False)


def test_a_silent_region_fails_the_rollback_until_it_has_been_told() -> None:
    order = note_part(make_order(), part(make_order(), "one", LIVE), 1.0)
    silent = note_refusal(order, "two", "did not answer", 2.0, owed=True)
    assert (silent.state, silent.failure, silent.open) == (FAILED, "two: did not answer", True)
    told = note_part(silent, part(order, "two", LIVE), 3.0)
    assert (told.state, told.failure, told.owed, told.open) == ("live", None, [], False)


def test_a_region_that_does_not_run_the_model_is_left_out() -> None:
    order = without_region(note_part(make_order(), part(make_order(), "one", LIVE), 1.0), "two", 2.0)
    assert (order.state, order.regions) == ("live", ["one"])
    nobody = without_region(order, "one", 3.0)
    assert (nobody.state, nobody.failure) == (FAILED, "no region runs the model")


def test_a_superseded_rollback_asks_nothing_any_more() -> None:
    ended = supersede(make_order(owed=["two"]), "newer", 1.0)
    assert (ended.state, ended.open) == ("superseded", False)
    assert note_part(ended, part(ended, "one", QUEUED), 2.0).state == "superseded"


def test_the_bad_release_is_the_newest_that_anybody_serves() -> None:
    assert newest_release([(2, "b"), (3, "c"), (1, "a")]) == "c"
    assert newest_release([]) is None


def test_an_order_is_read_or_says_what_is_wrong() -> None:
    raw = {"schema_version": 1, "model": "m", "to": {"version": 3}, "regions": ["one"], "reason": " slow "}
    asked = read_asked(raw, ["one", "two"])
    assert (asked.version, asked.release, asked.regions, asked.reason) == (3, None, ["one"], "slow")
    for change in (
        {"to": {"version": True}},
        {"to": "v3"},
        {"regions": []},
        {"regions": ["one", "one"]},
        {"reason": ""},
    ):
        with pytest.raises(InvalidInput, match="is malformed"):
            read_asked(raw | change, ["one", "two"])


# Standbys


@pytest.mark.parametrize(
    ("status", "now", "free", "why"),
    [
        (ServerStatus(state=Server.READY), 9.0, 0.5, None),
        (ServerStatus(state=Server.STARTING), 9.0, 0.5, None),
        (ServerStatus(state=Server.READY), 10.0, 0.5, "its time is over"),
        (ServerStatus(state=Server.READY), 9.0, 0.05, "5% of the memory is free"),
        (ServerStatus(state=Server.FAILED, note="exited with 1"), 9.0, 0.5, "it does not run exited with 1"),
        (ServerStatus(state=Server.ABSENT), 9.0, 0.5, "it does not run"),
        (ServerStatus(state=Server.STARTING, degraded=True), 9.0, 0.5, "it does not run"),
    ],
)
def test_a_standby_ends_when_there_is_a_reason(status: ServerStatus, now: float, free: float, why: str | None) -> None:
    live = replace(LIVE_NOW, standby="rel-1", standby_until=10.0)
    assert end_of_standby(live, status, now=now, free_memory=free) == why
