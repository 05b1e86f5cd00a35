"""A rollback in one region and over all of them: every step, every field, and both sides of each bound."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Counters, Outcomes, Snapshot
from serving.errors import Conflict, InvalidInput, NotFound
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.promotion_state import Promotion
from serving.regions.deciding.rollback_order import (
    Asked,
    RollbackOrder,
    end_promotion,
    forgive,
    newest_release,
    note_part,
    note_refusal,
    read_asked,
    read_report,
    read_rollback_order,
    region_order,
    show_rollback_order,
    supersede,
    supersede_in,
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
    RegionOrder,
    Rollback,
    Seen,
    bad_backends,
    decide_rollback,
    find_target,
    overrule_rollback,
    read_region_order,
    read_rollback,
    show_rollback,
    weights_in_force,
)
from serving.regions.deciding.rollout_state import ABORTED, CANARY, ROLLED_BACK, Server
from serving.regions.registry.registry import LiveModel
from tests.fakes.rollouts import make_release


def rollback(**changes: Any) -> Rollback:
    facts = {"release": "rel-1", "replaced": ["rel-2", "rel-3"], "drain_s": 5.0, "start_timeout_s": 60.0, **changes}
    return Rollback(id="b", region="here", model="m", order={}, reason="slow", ordered_at=100.0, **facts)


def counted(*in_flight: int) -> Snapshot:
    """How many requests of rel-2, rel-3 … are under way."""
    backends = {
        f"rel-{number}@here": Counters(users=Outcomes(answered=9), in_flight=count)
        for number, count in enumerate(in_flight, 2)
    }
    return Snapshot(boot_id="b", backends=backends)


# One region


def test_states_and_acts_are_named_for_the_api_and_the_journal() -> None:
    assert (QUEUED, STARTING, SWITCHING, LIVE, FAILED) == ("queued", "starting", "switching", "live", "failed")
    assert [act.value for act in Act] == [
        "launch the server of the version to go back to",
        "shift weights",
        "stop what was replaced",
        "wait",
    ]
    unseen = Seen()
    assert (unseen.target, unseen.note, unseen.degraded) == (Server.ABSENT, "", False)
    assert (unseen.before_target, unseen.stats) == (None, None)


def test_a_new_rollback_is_queued_and_has_done_nothing() -> None:
    new = Rollback(id="b", region="here", model="m", order={}, reason="slow", release=None)
    assert (new.state, new.changed, new.warm, new.settled, new.replaced) == (QUEUED, True, False, False, [])
    assert (new.version, new.failure, new.starting_at, new.weights_at, new.finished_at) == (None,) * 5
    assert (new.drain_s, new.start_timeout_s, new.replaced_version, new.last_bad_answer_at) == (10.0, 180.0, None, None)
    assert new.ordered_at == 0.0


def test_a_rollback_survives_json_and_ignores_fields_of_tomorrow() -> None:
    document = rollback(weights_at=3.0).to_json()
    assert read_rollback(document | {"of_tomorrow": 1}) == rollback(weights_at=3.0)


def live(release: str | None, before: str | None = None, reason: str | None = None) -> LiveModel:
    return LiveModel(model="m", release_id=release, previous_release_id=before, reason=reason)


@pytest.mark.parametrize(
    ("begun", "target"),
    [
        (rollback(), Server.READY),
        (rollback(changed=False), Server.ABSENT),
        (rollback(state=STARTING, starting_at=1.0), Server.READY),
        (rollback(state=STARTING, starting_at=1.0, warm=True), Server.READY),
    ],
)
def test_a_version_that_answers_or_is_live_already_is_switched_to(begun: Rollback, target: Server) -> None:
    assert decide_rollback(begun, Seen(target=target, before_target="rel-0", degraded=True), 999.0) == Keep(
        rollback=replace(begun, state=SWITCHING, warm=begun.warm or begun.starting_at is None),
        message="rel-1 is live",
        live=live("rel-1", "rel-0"),
    )


def test_a_first_release_leaves_nothing_and_says_why() -> None:
    begun = rollback(release=None)
    assert decide_rollback(begun, Seen(), 110.0) == Keep(
        rollback=replace(begun, state=SWITCHING, warm=True),
        message="nothing is live",
        live=live(None, None, "rollback b: slow"),
    )


def test_a_server_that_is_cold_is_started() -> None:
    assert decide_rollback(rollback(), Seen(), 110.0) == Keep(
        rollback=rollback(state=STARTING, starting_at=110.0), message="starting the server"
    )


@pytest.mark.parametrize(
    ("target", "now", "act"),
    [
        (Server.ABSENT, 110.0, Act.LAUNCH),
        (Server.FAILED, 110.0, Act.LAUNCH),
        (Server.STARTING, 110.0, Act.WAIT),
        (Server.STARTING, 170.0, Act.WAIT),
    ],
)
def test_a_server_that_starts_is_waited_for(target: Server, now: float, act: Act) -> None:
    assert decide_rollback(rollback(state=STARTING, starting_at=110.0), Seen(target=target), now) is act


@pytest.mark.parametrize(
    ("seen", "now", "why"),
    [
        (Seen(target=Server.FAILED, degraded=True, note="exited with 1"), 111.0, "exited with 1"),
        (Seen(target=Server.STARTING), 170.1, "not ready within 60 s"),
    ],
)
def test_a_server_that_does_not_start_leaves_the_region_as_it_is(seen: Seen, now: float, why: str) -> None:
    begun = rollback(state=STARTING, starting_at=110.0)
    failure = f"here stays as it is: the server of rel-1 did not start: {why}"
    assert decide_rollback(begun, seen, now) == Keep(
        rollback=replace(begun, state=FAILED, failure=failure), message=failure
    )


@pytest.mark.parametrize("state", [SWITCHING, LIVE, FAILED])
def test_weights_move_before_anything_is_stopped(state: str) -> None:
    assert decide_rollback(rollback(state=state), Seen(stats=counted(0, 0)), 999.0) is Act.SHIFT_WEIGHTS


@pytest.mark.parametrize(
    ("stats", "now", "act"),
    [
        (counted(0, 0), 110.0, Act.STOP_REPLACED),
        (counted(1, 0), 114.9, Act.WAIT),
        (counted(0, 1), 114.9, Act.WAIT),
        (counted(0), 114.9, Act.WAIT),
        (None, 114.9, Act.WAIT),
        (counted(1, 1), 115.0, Act.STOP_REPLACED),
        (None, 115.0, Act.STOP_REPLACED),
    ],
)
def test_what_leaves_is_stopped_once_it_is_quiet_or_out_of_time(stats: Snapshot | None, now: float, act: Act) -> None:
    assert decide_rollback(rollback(state=LIVE, weights_at=110.0), Seen(stats=stats), now) is act


def test_the_gateway_names_what_leaves_by_release_and_region() -> None:
    assert bad_backends(rollback()) == ["rel-2@here", "rel-3@here"]


def test_final_weights_finish_the_rollback() -> None:
    switching = rollback(state=SWITCHING)
    assert weights_in_force(switching, 120.0) == replace(switching, state=LIVE, weights_at=120.0, finished_at=120.0)
    assert weights_in_force(rollback(state=FAILED), 120.0).state == FAILED


@pytest.mark.parametrize("state", [QUEUED, STARTING, SWITCHING])
def test_a_newer_rollback_ends_one_under_way(state: str) -> None:
    failure = "rollback c was ordered before this one had ended"
    assert overrule_rollback(rollback(state=state), "c", 120.0) == rollback(
        state=FAILED, failure=failure, finished_at=120.0, settled=True
    )


@pytest.mark.parametrize("state", [LIVE, FAILED])
def test_a_newer_rollback_only_settles_one_that_is_over(state: str) -> None:
    assert overrule_rollback(rollback(state=state), "c", 120.0) == rollback(state=state, settled=True)


def test_a_region_shows_its_times_from_the_order_on() -> None:
    shown = show_rollback(
        rollback(
            state=LIVE,
            version=1,
            replaced_version=2,
            failure="f",
            warm=True,
            weights_at=103.0,
            last_bad_answer_at=99.0,
            finished_at=104.0,
            settled=True,
        ),
        endpoint="http://gateway",
    )
    assert shown == {
        "id": "b",
        "region": "here",
        "model": "m",
        "state": "live",
        "reason": "f",
        "release": "rel-1",
        "version": 1,
        "previous_version": 2,
        "changed": True,
        "warm": True,
        "started_at": 100.0,
        "finished_at": 104.0,
        "switched_after_s": 3.0,
        "last_bad_answer_after_s": 0.0,
        "endpoint": "http://gateway",
        "settled": True,
    }
    assert show_rollback(rollback(), endpoint="")["switched_after_s"] is None


# What a region is asked

REGION_ORDER = {
    "schema_version": 1,
    "model": "m",
    "release": None,
    "bad": "rel-2",
    "reason": "slow",
    "supersedes": ["rollback/a"],
}


def test_a_regions_order_is_read_and_its_reason_bounded() -> None:
    order = RegionOrder(model="m", release=None, bad="rel-2", reason="slow", supersedes=("rollback/a",))
    assert read_region_order(REGION_ORDER) == order
    assert read_region_order(REGION_ORDER | {"release": "rel-1", "bad": None}).release == "rel-1"
    assert len(read_region_order(REGION_ORDER | {"reason": "x" * 1001}).reason) == 1000


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        ([], "rollback order is malformed"),
        ({}, "rollback order is malformed"),
        (REGION_ORDER | {"schema_version": 2}, "rollback order is malformed"),
        (REGION_ORDER | {"model": 1}, "rollback order is malformed"),
        (REGION_ORDER | {"reason": None}, "rollback order is malformed"),
        (REGION_ORDER | {"supersedes": "x"}, "rollback order is malformed"),
        (REGION_ORDER | {"release": "../x"}, "release is malformed"),
        (REGION_ORDER | {"bad": "../x"}, "bad is malformed"),
        *(
            ({k: v for k, v in REGION_ORDER.items() if k != name}, "rollback order is malformed")
            for name in REGION_ORDER
        ),
    ],
)
def test_a_regions_order_that_does_not_hold_is_refused(raw: Any, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{what}"):
        read_region_order(raw)


def test_what_a_region_is_sent_is_what_it_reads() -> None:
    sent = region_order(order(release="rel-1", supersedes=["rollback/a"]))
    assert sent == REGION_ORDER | {"release": "rel-1"}


# Where a region goes

BEEN_LIVE = [f"rel-{number}" for number in range(12)]
NOW_LIVE = live("rel-2", "rel-1")


def target(now_live: LiveModel | None, *, ends: bool = False, been: list[str] | None = None, **asks: Any) -> str | None:
    asked = read_region_order(REGION_ORDER | asks)
    return find_target(asked, now_live, been_live=BEEN_LIVE if been is None else been, ends_rollouts=ends)


def test_a_region_goes_to_what_it_had_before_the_bad_release() -> None:
    assert target(NOW_LIVE) == "rel-1"
    assert target(NOW_LIVE, ends=True) == "rel-1"


def test_a_region_that_serves_another_release_stays() -> None:
    assert target(NOW_LIVE, bad="rel-3") == "rel-2"
    assert target(live("rel-2"), bad=None) == "rel-2"


def test_a_region_goes_where_it_is_told_if_it_has_been_there() -> None:
    assert target(NOW_LIVE, release="rel-0") == "rel-0"
    assert target(None, release="rel-0", ends=True) == "rel-0"
    known = "rel-2, rel-3, rel-4, rel-5, rel-6, rel-7, rel-8, rel-9, rel-10, rel-11"
    with pytest.raises(Conflict, match=f"was never live in this region, got rel-99, expected one of {known}$"):
        target(NOW_LIVE, release="rel-99")
    with pytest.raises(Conflict, match="expected none was: promote it"):
        target(NOW_LIVE, release="rel-99", been=[])


def test_a_region_that_never_had_the_model_is_told_so() -> None:
    with pytest.raises(NotFound, match="does not run the model"):
        target(None, been=[])
    assert target(None, been=[], ends=True) is None


@pytest.mark.parametrize(
    ("now_live", "ends", "got"),
    [(live("rel-2"), False, "rel-2"), (live("rel-2"), True, "rel-2"), (live(None), False, "nothing is live")],
)
def test_without_a_version_before_there_is_nowhere_to_go(now_live: LiveModel, ends: bool, got: str) -> None:
    with pytest.raises(Conflict, match=f"no version before the live one in this region, got {got}, expected"):
        target(now_live, ends=ends)


def test_where_nothing_is_live_a_release_that_is_tried_may_be_left() -> None:
    assert target(live(None), ends=True) is None
    assert target(live(None, "rel-1")) == "rel-1"


# The order over all regions


def order(**changes: Any) -> RollbackOrder:
    facts = {"release": None, "bad": "rel-2", "supersedes": [], "regions": ["one", "two"], **changes}
    return RollbackOrder(id="b", asked={}, model="m", reason="slow", ordered_at=100.0, **facts)


def said(region: str, state: str, **changes: Any) -> dict[str, Any]:
    return unasked(order(), region) | {"state": state, "settled": True, **changes}


def test_a_new_order_runs_and_waits_for_every_region() -> None:
    new = order()
    assert (new.state, new.failure, new.finished_at, new.actor) == ("running", None, None, "")
    assert (new.parts, new.owed, new.open) == ({}, [], True)


def test_an_order_is_open_until_every_region_has_settled_and_been_told() -> None:
    both = {"one": said("one", LIVE), "two": said("two", LIVE)}
    assert not order(parts=both).open
    assert order(parts=both, owed=["two"]).open
    assert order(parts=both | {"one": said("one", LIVE, settled=False)}).open
    assert order(parts={"one": both["one"]}).open


def test_an_order_survives_json_and_ignores_fields_of_tomorrow() -> None:
    written = order(parts={"one": said("one", LIVE)})
    assert read_rollback_order(written.to_json() | {"of_tomorrow": 1}) == written


def test_the_bad_release_has_the_highest_version() -> None:
    assert newest_release([(3, "c"), (12, "l"), (1, "z")]) == "l"
    assert newest_release([]) is None


def test_what_a_region_says_is_kept_and_judged_once_all_have_spoken() -> None:
    first = note_part(order(owed=["one", "two"]), said("one", LIVE), 110.0)
    assert first == order(parts={"one": said("one", LIVE)}, owed=["two"])
    both = note_part(first, said("two", LIVE), 111.0)
    assert (both.state, both.failure, both.finished_at, both.owed) == (LIVE, None, 111.0, [])
    again = note_part(both, said("one", FAILED, reason="no server"), 112.0)
    assert (again.state, again.failure, again.finished_at) == (FAILED, "one: no server", 111.0)


def test_every_region_that_fails_is_named() -> None:
    failed = note_part(order(parts={"two": said("two", FAILED, reason="b")}), said("one", FAILED, reason="a"), 110.0)
    assert (failed.state, failed.failure) == (FAILED, "one: a; two: b")


def test_a_region_that_refuses_is_over_and_one_that_is_silent_is_told_again() -> None:
    refused = note_refusal(order(owed=["one"]), "one", "no", 110.0)
    assert refused.parts["one"] == said("one", FAILED, reason="no", finished_at=110.0)
    assert (refused.owed, refused.state, refused.finished_at) == ([], "running", None)
    silent = note_refusal(order(owed=["one", "two"]), "one", "away", 110.0, owed=True)
    assert silent.parts["one"] == said("one", FAILED, reason="away", finished_at=110.0, settled=False)
    assert silent.owed == ["two", "one"]


def test_a_region_without_the_model_is_no_part_of_the_order() -> None:
    parts = {"one": said("one", LIVE), "two": said("two", QUEUED)}
    left = without_region(order(parts=parts), "two", 110.0)
    assert left == order(parts={"one": parts["one"]}, regions=["one"], state=LIVE, finished_at=110.0)
    nobody = without_region(order(regions=["one"]), "one", 110.0)
    assert (nobody.state, nobody.failure, nobody.regions) == (FAILED, "no region runs the model", [])


def test_a_superseded_order_is_over_in_every_region() -> None:
    before = order(owed=["two"], parts={"one": said("one", CANARY, settled=False)})
    ended = supersede(before, "c", 110.0)
    parts = {"one": said("one", CANARY), "two": said("two", QUEUED)}
    assert ended == replace(
        before, state="superseded", failure="rollback c was ordered", finished_at=110.0, owed=[], parts=parts
    )
    assert note_part(ended, said("one", LIVE), 111.0).state == "superseded"
    both = note_part(note_part(ended, said("one", LIVE), 111.0), said("two", LIVE), 112.0)
    assert (both.state, both.failure) == ("superseded", "rollback c was ordered")


def test_an_order_goes_on_in_regions_that_a_newer_one_does_not_tell() -> None:
    before = order(regions=["one", "two"], parts={"one": said("one", SWITCHING, settled=False)})
    left = supersede_in(before, "c", 110.0, told=["one"])
    part = left.parts["one"]
    assert (part["state"], part["reason"], part["settled"]) == (FAILED, "rollback c was ordered", True)
    assert (left.state, left.open) == ("running", True)
    ended = note_part(left, said("two", LIVE), 111.0)
    assert (ended.state, ended.failure, ended.open) == (FAILED, "one: rollback c was ordered", False)


def test_a_region_that_had_gone_back_keeps_that_when_a_newer_order_comes() -> None:
    before = order(regions=["one", "two"], parts={"one": said("one", LIVE, settled=False)}, owed=["two"])
    left = supersede_in(before, "c", 110.0, told=["one"])
    assert (left.parts["one"], left.owed) == ({**said("one", LIVE), "settled": True}, ["two"])


@pytest.mark.parametrize("told", [["one", "two"], ["two", "one", "three"]])
def test_an_order_whose_regions_are_all_told_of_a_newer_one_is_superseded(told: list[str]) -> None:
    before = order(regions=["one", "two"])
    assert supersede_in(before, "c", 110.0, told=told) == supersede(before, "c", 110.0)


def test_an_order_that_was_over_keeps_how_it_ended() -> None:
    ended = supersede(order(state=FAILED, failure="one: no", finished_at=105.0), "c", 110.0)
    assert (ended.state, ended.failure, ended.finished_at) == (FAILED, "one: no", 105.0)


@pytest.mark.parametrize(
    ("before", "after"), [(CANARY, ABORTED), (QUEUED, ABORTED), (LIVE, ROLLED_BACK), ("golden", ABORTED)]
)
def test_a_rollback_ends_a_promotion_and_its_regions(before: str, after: str) -> None:
    part = {"region": "one", "state": before, "changed": True, "percent": 5, "settled": False, "steps": []}
    ended = end_promotion(promotion({"one": part}), "rollback b", 110.0, told=["one"])
    over = {"state": after, "percent": None, "reason": "rollback b", "finished_at": 110.0, "settled": True}
    assert ended == replace(
        promotion({"one": part | over}), state=ABORTED, ending=ABORTED, reason="rollback b", finished_at=110.0, owed=[]
    )


@pytest.mark.parametrize(("state", "changed"), [(ROLLED_BACK, True), (ABORTED, True), (LIVE, False)])
def test_a_region_that_is_over_or_was_not_changed_is_left(state: str, changed: bool) -> None:
    part = {"region": "one", "state": state, "changed": changed, "percent": 5}
    assert end_promotion(promotion({"one": part}), "rollback b", 110.0, told=["one"]).parts == {"one": part}


def test_regions_that_a_rollback_does_not_name_owe_the_end_of_what_was_under_way_there() -> None:
    under_way = {"state": CANARY, "changed": True, "revert_failure": None}
    parts = {"one": {**under_way, "state": LIVE}, "two": under_way, "three": {**under_way, "state": ABORTED}}
    ended = end_promotion(promotion(parts), "rollback b", 110.0, told=[])
    assert (ended.owed, ended.parts) == (["two"], parts)


@pytest.mark.parametrize(("scope", "owed"), [("all", ["one"]), ("region", [])])
def test_regions_that_were_being_taken_back_owe_that_although_a_rollback_does_not_name_them(
    scope: str, owed: list[str]
) -> None:
    live = {"one": {"state": LIVE, "changed": True, "revert_failure": None}}
    before = replace(promotion(live), ending=ABORTED, policy=PromotionPolicy(rollback_scope=scope))
    assert end_promotion(before, "rollback b", 110.0, told=["two"]).owed == owed


def test_a_debt_that_a_rollback_does_not_replace_stays() -> None:
    live = {"one": {"state": LIVE, "changed": True, "revert_failure": None}}
    before = replace(promotion(live), ending=ABORTED, owed=["one"])
    assert end_promotion(before, "rollback b", 110.0, told=["two"]).owed == ["one"]


def test_a_rollback_forgives_the_debts_of_the_regions_that_it_names() -> None:
    before = replace(promotion({}), owed=["one", "two"], watching=True)
    assert forgive(before, told=["one"]) == replace(before, owed=["two"], watching=False)


def promotion(parts: dict[str, Any]) -> Promotion:
    return Promotion(
        id="p",
        release=make_release(),
        version=2,
        policy=PromotionPolicy(),
        regions=["one"],
        ordered_at=1.0,
        owed=["one"],
        parts=parts,
    )


def test_a_region_that_was_not_asked_is_shown_as_queued() -> None:
    assert unasked(order(release="rel-1"), "one") == {
        "id": "b",
        "region": "one",
        "model": "m",
        "state": "queued",
        "reason": None,
        "release": "rel-1",
        "version": None,
        "previous_version": None,
        "started_at": None,
        "finished_at": None,
        "switched_after_s": None,
        "last_bad_answer_after_s": None,
        "changed": True,
        "warm": False,
        "endpoint": None,
        "settled": False,
    }


def test_an_order_is_shown_with_every_region() -> None:
    shown = show_rollback_order(
        order(actor="ann", failure="f", finished_at=110.0, supersedes=["rollback/a"], parts={"two": said("two", LIVE)})
    )
    assert shown == {
        "id": "b",
        "model": "m",
        "state": "running",
        "reason": "slow",
        "actor": "ann",
        "failure": "f",
        "ordered_at": 100.0,
        "finished_at": 110.0,
        "release": None,
        "replaces": "rel-2",
        "supersedes": ["rollback/a"],
        "regions": [unasked(order(), "one"), said("two", LIVE)],
    }


# What an operator asks

ASKED = {"schema_version": 1, "model": "m", "to": None, "regions": None, "reason": " slow "}


@pytest.mark.parametrize(
    ("change", "version", "release", "regions"),
    [
        ({}, None, None, None),
        ({"to": {"version": 3}, "regions": ["one"]}, 3, None, ["one"]),
        ({"to": {"release": "rel-1"}, "regions": ["two", "one"]}, None, "rel-1", ["two", "one"]),
    ],
)
def test_an_order_is_read(
    change: dict[str, Any], version: int | None, release: str | None, regions: list[str] | None
) -> None:
    asked = Asked(model="m", version=version, release=release, regions=regions, reason="slow")
    assert read_asked(ASKED | change, ["one", "two"]) == asked
    assert asked.to_json()["regions"] == regions


def test_what_an_order_may_leave_out_is_all_regions_and_the_version_before() -> None:
    raw = {name: ASKED[name] for name in ("schema_version", "model", "reason")}
    assert read_asked(raw, ["one"]) == Asked(model="m", version=None, release=None, regions=None, reason="slow")
    assert len(read_asked(ASKED | {"reason": "x" * 1000}, ["one"]).reason) == 1000


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"of_tomorrow": 1}, "rollback is malformed"),
        ({"schema_version": 2}, "rollback is malformed"),
        ({"model": 1}, "rollback is malformed"),
        ({"model": "../x"}, "model name is malformed"),
        ({"reason": None}, "reason is malformed"),
        ({"reason": "  "}, "reason is malformed"),
        ({"reason": "x" * 1001}, "reason is malformed"),
        ({"to": "rel-1"}, "to is malformed"),
        ({"to": {}}, "to is malformed"),
        ({"to": {"version": "3"}}, "to is malformed"),
        ({"to": {"version": True}}, "to is malformed"),
        ({"to": {"version": 3, "release": "rel-1"}}, "to is malformed"),
        ({"to": {"release": 3}}, "to is malformed"),
        ({"to": {"release": "../x"}}, "release id is malformed"),
        ({"regions": "one"}, "regions is malformed"),
        ({"regions": []}, "regions is malformed"),
        ({"regions": ["one", "one"]}, "regions is malformed"),
        ({"regions": ["nine"]}, r"unknown region, got nine, expected one \| two"),
    ],
)
def test_an_order_that_does_not_hold_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{what}"):
        read_asked(ASKED | change, ["one", "two"])


def test_an_order_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^rollback is malformed"):
        read_asked(["model"], ["one"])


# What a region tells of a rollback that it took for itself

PART = {
    "region": "one",
    "model": "m",
    "release": "rel-1",
    "state": "live",
    "reason": None,
    "finished_at": 9.0,
    "settled": True,
}
REPORT = {
    "region": "one",
    "asked": {"reason": "slow"},
    "actor": "operator",
    "bad": "rel-2",
    "supersedes": [],
    "ordered_at": 1.0,
    "part": PART,
}


def test_a_report_becomes_an_order_of_that_region_that_has_ended() -> None:
    order = read_report("b", REPORT | {"of_a_younger_agent": 1}, ["one", "two"])
    assert (order.regions, order.state, order.open, order.finished_at) == (["one"], "live", False, 9.0)
    assert (order.release, order.bad, order.actor, order.ordered_at) == ("rel-1", "rel-2", "operator", 1.0)


@pytest.mark.parametrize(
    "raw",
    [
        "a text",
        *({name: value for name, value in REPORT.items() if name != left} for left in REPORT),
        REPORT | {"region": "three"},
        REPORT | {"asked": {}},
        REPORT | {"part": "live"},
        REPORT | {"part": PART | {"region": "two"}},
        REPORT | {"part": PART | {"settled": False}},
        *(REPORT | {"part": {name: value for name, value in PART.items() if name != left}} for left in PART),
    ],
)
def test_a_report_that_does_not_hold_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^rollback report is malformed"):
        read_report("b", raw, ["one", "two"])
