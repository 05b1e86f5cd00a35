"""A promotion over its regions: what comes next, what an order may ask for, and how it is shown."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from serving.errors import InvalidInput
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.promotion_decision import (
    Move,
    Next,
    decide_promotion,
    is_awaited,
    is_watched,
    overtaken_by,
    reopened_by,
)
from serving.regions.deciding.promotion_state import (
    Order,
    Promotion,
    end,
    evidence_for,
    finish,
    is_taken_back,
    read_order,
    read_promotion,
    same_order,
    show_promotion,
    unasked,
)
from serving.regions.deciding.rollout_state import ABORTED, LIVE, QUEUED, ROLLED_BACK
from tests.fakes.rollouts import make_release

REGIONS = ["one", "two", "three", "four"]


def part(state: str, **changes: Any) -> dict[str, Any]:
    """What a region says of its rollout."""
    said = {"state": state, "changed": True, "reason": None, "revert_failure": None, "ending": None, "settled": True}
    return said | changes


def promotion(policy: PromotionPolicy | None = None, **changes: Any) -> Promotion:
    facts = {"id": "p", "version": 2, "regions": REGIONS, "ordered_at": 5.0, **changes}
    return Promotion(release=make_release(), policy=policy or PromotionPolicy(), **facts)


def test_moves_are_named_for_the_journal() -> None:
    assert [move.value for move in Move] == ["advance", "take back", "wait", "end", "finish"]
    nothing = Next(move=Move.WAIT)
    assert (nothing.region, nothing.ahead, nothing.state, nothing.reason) == ("", (), "", None)


# Forward


@pytest.mark.parametrize(
    ("ahead", "expected"), [(0, ()), (1, ("three",)), (2, ("three", "four")), (9, ("three", "four"))]
)
def test_the_first_region_that_is_not_live_is_next_and_others_prepare(ahead: int, expected: tuple[str, ...]) -> None:
    going = promotion(PromotionPolicy(prepare_ahead=ahead), parts={"one": part(LIVE)})
    assert decide_promotion(going) == Next(move=Move.ADVANCE, region="two", ahead=expected)


def test_regions_are_taken_in_the_order_of_the_promotion() -> None:
    assert decide_promotion(promotion(parts={"two": part(LIVE)})).region == "one"
    assert decide_promotion(promotion(parts={"one": part("canary")})).region == "one"


@pytest.mark.parametrize("state", [ROLLED_BACK, ABORTED])
def test_a_region_that_went_back_ends_the_promotion_with_its_reason(state: str) -> None:
    going = promotion(parts={"one": part("canary"), "three": part(state, reason="it is bad")})
    assert decide_promotion(going) == Next(move=Move.END, region="three", state=state, reason="it is bad")
    going.parts["three"].pop("reason")
    assert decide_promotion(going).reason is None


def test_a_promotion_is_live_when_every_region_is() -> None:
    live = promotion(paused=True, parts={name: part(LIVE) for name in REGIONS})
    assert decide_promotion(live) == Next(move=Move.FINISH, state=LIVE)


def test_a_pause_stops_before_the_next_region_and_not_within_one() -> None:
    assert decide_promotion(promotion(paused=True, parts={"one": part(LIVE)})) == Next(move=Move.WAIT)
    within = promotion(paused=True, parts={"one": part("canary")})
    assert decide_promotion(within) == Next(move=Move.ADVANCE, region="one")


# Taking back


def taking_back(scope: str = "all", **changes: Any) -> Promotion:
    facts = {"ending": ROLLED_BACK, "reason": "it is bad", **changes}
    return promotion(PromotionPolicy(rollback_scope=scope), **facts)


def test_regions_are_taken_back_side_by_side() -> None:
    parts = {"one": part(LIVE), "two": part("canary"), "three": part(ROLLED_BACK)}
    both = Next(move=Move.TAKE_BACK, region="two", beside=("one",))
    assert decide_promotion(taking_back(parts=parts)) == both
    parts["two"] = part(ABORTED)
    assert decide_promotion(taking_back(parts=parts)) == Next(move=Move.TAKE_BACK, region="one")
    parts["one"] = part(ROLLED_BACK)
    finished = Next(move=Move.FINISH, state=ROLLED_BACK, reason="it is bad")
    assert decide_promotion(taking_back(parts=parts)) == finished


def test_a_region_that_owes_an_answer_is_passed_over() -> None:
    parts = {"one": part(LIVE), "two": part(LIVE)}
    assert decide_promotion(taking_back(parts=parts, owed=["two"])).region == "one"


def test_the_scope_of_a_region_leaves_those_that_are_live() -> None:
    parts = {"one": part(LIVE), "two": part(LIVE, ending=ROLLED_BACK), "three": part("canary")}
    assert decide_promotion(taking_back("region", parts=parts)).region == "three"
    parts["three"] = part(ROLLED_BACK)
    assert decide_promotion(taking_back("region", parts=parts)).region == "two"
    parts["two"] = part(ROLLED_BACK)
    assert decide_promotion(taking_back("region", parts=parts)).move is Move.FINISH
    assert decide_promotion(taking_back(parts=parts)).region == "one"
    parts = {"one": part("canary"), "two": part(LIVE)}
    assert decide_promotion(taking_back("region", parts=parts)).region == "one"


@pytest.mark.parametrize(
    ("said", "taken_back"),
    [
        (part(ROLLED_BACK), True),
        (part(ABORTED), True),
        (part(LIVE, changed=False), True),
        (part(LIVE, revert_failure="no server"), True),
        (part(LIVE), False),
        (part("canary"), False),
    ],
)
def test_a_region_is_taken_back_when_nothing_is_left_to_undo(said: dict[str, Any], taken_back: bool) -> None:
    assert is_taken_back(said) is taken_back


@pytest.mark.parametrize("state", [ROLLED_BACK, ABORTED])
def test_a_region_that_goes_back_while_it_watches_reopens_a_live_promotion(state: str) -> None:
    live = promotion(state=LIVE, finished_at=9.0, watching=True, reason="old")
    assert reopened_by(live, part(state, reason="it turned bad")) == replace(
        live, state="running", ending=ROLLED_BACK, reason="it turned bad", finished_at=None, watching=False
    )


def test_nothing_else_reopens_a_promotion() -> None:
    assert reopened_by(promotion(state=LIVE), part(LIVE)) is None
    assert reopened_by(promotion(state="running"), part(ROLLED_BACK)) is None
    assert reopened_by(promotion(state=ROLLED_BACK), part(ROLLED_BACK)) is None


def test_a_promotion_is_watched_while_a_live_region_is_not_settled() -> None:
    assert is_watched(promotion(parts={"one": part(LIVE), "two": part(LIVE, settled=False)}))
    assert not is_watched(promotion(parts={"one": part(LIVE), "two": part(ROLLED_BACK, settled=False)}))
    assert not is_watched(promotion())


# The end


def test_the_first_reason_for_an_end_stays() -> None:
    ended = end(promotion(), ABORTED, "enough")
    assert ended == promotion(ending=ABORTED, reason="enough")
    assert end(ended, ROLLED_BACK, "it is bad") == ended


def test_the_end_says_what_could_not_be_taken_back() -> None:
    parts = {"one": part(LIVE, revert_failure="one keeps version 2"), "two": part(ROLLED_BACK)}
    ended = finish(promotion(reason="it is bad", parts=parts, owed=["three"]), ROLLED_BACK, 9.0)
    assert (ended.state, ended.finished_at) == (ROLLED_BACK, 9.0)
    assert ended.reason == "it is bad; one keeps version 2; three did not answer and is taken back when it does"
    assert finish(promotion(), LIVE, 9.0).reason is None


def test_a_region_is_told_what_the_others_have_counted() -> None:
    parts = {"one": part(LIVE, evidence=[1, 2]), "two": part("canary", evidence=[3]), "three": part(QUEUED)}
    assert evidence_for(promotion(parts=parts), "two") == [1, 2]
    assert evidence_for(promotion(parts=parts), "four") == [1, 2, 3]


# The document


def test_a_promotion_survives_json_and_ignores_fields_of_tomorrow() -> None:
    written = promotion(parts={"one": part(LIVE)}, paused=True, actor="ann")
    document = written.to_json()
    document["policy"]["of_tomorrow"] = document["of_tomorrow"] = 1
    assert read_promotion(document) == written


def test_a_new_promotion_runs_for_the_first_time() -> None:
    new = promotion()
    assert (new.state, new.attempt, new.paused, new.watching) == ("running", 1, False, False)
    assert (new.reason, new.finished_at, new.ending, new.promoted_by, new.actor) == (None, None, None, None, "")


def test_a_region_that_was_not_asked_is_shown_as_queued() -> None:
    shown = show_promotion(promotion(actor="ann", parts={"one": part(LIVE, evidence=[1])}))
    assert part(LIVE).items() <= shown["regions"][0].items()
    assert "evidence" not in shown["regions"][0]
    assert shown["regions"][1] == {
        "id": "p",
        "region": "two",
        "model": "m",
        "release": "rel-2",
        "state": "queued",
        "percent": None,
        "reason": None,
        "version": 2,
        "previous_version": None,
        "started_at": None,
        "finished_at": None,
        "endpoint": None,
        "changed": True,
        "ending": None,
        "revert_failure": None,
        "held": False,
        "settled": False,
        "watching": False,
        "paused": False,
        "waiting_for": None,
        "actor": "ann",
        "steps": [],
    }
    assert unasked(promotion(), "two")["evidence"] == []


def test_a_promotion_is_shown_with_what_was_ordered_and_how_it_stands() -> None:
    shown = show_promotion(
        promotion(state=LIVE, reason="r", finished_at=9.0, actor="ann", attempt=3, promoted_by="bob", watching=True)
    )
    del shown["regions"]
    assert shown == {
        "id": "p",
        "model": "m",
        "release": "rel-2",
        "version": 2,
        "state": "live",
        "reason": "r",
        "ordered_at": 5.0,
        "finished_at": 9.0,
        "actor": "ann",
        "attempt": 3,
        "paused": False,
        "promoted_by": "bob",
        "watching": True,
        "policy": asdict(PromotionPolicy()),
    }


# The order

ORDER = {
    "schema_version": 1,
    "release": make_release().to_json(),
    "policy": {"bake_s": 1.0},
    "regions": ["one", "two"],
}


def test_an_order_is_read() -> None:
    policy = PromotionPolicy(bake_s=1.0)
    assert read_order(ORDER, REGIONS) == Order(release=make_release(), policy=policy, regions=["one", "two"])
    without = {name: value for name, value in ORDER.items() if name != "policy"}
    assert read_order(without, REGIONS).policy == PromotionPolicy()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"of_tomorrow": 1}, "order is malformed"),
        ({"schema_version": 2}, "order has an unknown schema_version, got 2, expected 1"),
        ({"schema_version": None}, "order has an unknown schema_version"),
        ({"regions": "one"}, "regions is malformed"),
        ({"regions": []}, "regions is malformed"),
        ({"regions": None}, "regions is malformed"),
        ({"regions": ["one", "one"]}, "regions is malformed"),
        ({"regions": ["one", "nine"]}, r"unknown region, got nine, expected one \| two \| three \| four"),
        ({"release": None}, "release is malformed"),
        ({"policy": None}, "policy is malformed"),
        ({"policy": {"of_tomorrow": 1}}, "policy is malformed"),
    ],
)
def test_an_order_that_does_not_hold_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{what}"):
        read_order(ORDER | change, REGIONS)


def test_an_order_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^order is malformed"):
        read_order(["schema_version"], REGIONS)


def test_an_order_is_the_same_when_release_policy_and_regions_are() -> None:
    order = Order(release=make_release(), policy=PromotionPolicy(), regions=REGIONS)
    assert same_order(promotion(), order)
    for change in ({"release": make_release("rel-3")}, {"policy": PromotionPolicy(bake_s=1.0)}, {"regions": ["one"]}):
        assert not same_order(promotion(), replace(order, **change))


def test_a_promotion_that_is_over_is_found_again_whatever_the_policy() -> None:
    over = promotion(state=LIVE)
    order = Order(release=make_release(), policy=PromotionPolicy(bake_s=1.0), regions=REGIONS)
    assert same_order(over, order)
    for change in ({"release": make_release("rel-3")}, {"regions": ["one"]}):
        assert not same_order(over, replace(order, **change))


@pytest.mark.parametrize("state", ["canary", "golden", LIVE])
def test_a_region_that_goes_back_is_not_waited_for_before_the_others_do(state: str) -> None:
    parts = {"one": {**part(state), "ending": ROLLED_BACK, "reason": "it is bad"}}
    ending = Next(move=Move.END, region="one", state=ROLLED_BACK, reason="it is bad")
    assert decide_promotion(promotion(PromotionPolicy(), parts=parts)) == ending


def later(state: str, part_state: str, **changes: Any) -> Promotion:
    return replace(promotion(PromotionPolicy(), parts={"one": part(part_state)}), id="later", state=state, **changes)


def test_what_a_later_promotion_put_live_is_not_taken_back_for_an_earlier_one() -> None:
    assert overtaken_by("one", [later(LIVE, LIVE)]) == "later"
    assert overtaken_by("one", [later(ROLLED_BACK, LIVE)]) == "later"
    assert overtaken_by("two", [later(LIVE, LIVE)]) is None
    assert overtaken_by("one", [later(ROLLED_BACK, ROLLED_BACK)]) is None
    assert overtaken_by("one", [later("running", LIVE)]) is None
    assert overtaken_by("one", [later(ROLLED_BACK, LIVE, owed=["one"])]) is None


def test_a_debt_waits_for_a_later_promotion_that_is_at_work_in_the_region() -> None:
    assert is_awaited("one", [later("running", "canary")])
    assert is_awaited("one", [later("running", LIVE)])
    assert not is_awaited("one", [later("running", "queued")])
    assert not is_awaited("two", [later("running", "canary")])
    assert not is_awaited("one", [later(ROLLED_BACK, ROLLED_BACK)])
