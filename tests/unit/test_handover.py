"""What an agent that led hands over, and how it merges with what the one that leads knows."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Conflict, InvalidInput
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.promotion_state import Promotion, read_promotion, unasked
from serving.regions.deciding.rollback_order import RollbackOrder, read_rollback_order
from serving.regions.leading.handover import make_papers, merge_papers
from serving.regions.registry import schema
from serving.regions.registry.epochs import Epoch
from serving.regions.registry.registry import Event, Registry
from serving.regions.registry.rollback_store import RollbackStore
from tests.fakes.rollouts import make_release

OLD, NEW = Epoch(1, "one"), Epoch(2, "two")
REGIONS = ["one", "two", "three"]
MODEL = make_release("v1").model
EVENT = Event(kind="promotion", subject="p", message="ordered", detail={})


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[Callable[[str], Registry]]:
    opened: list[Registry] = []

    def make(name: str) -> Registry:
        opened.append(Registry(f"sqlite:///{tmp_path / name}.db", clock=lambda: 1000.0))
        return opened[-1]

    yield make
    for registry in opened:
        registry.close()


@pytest.fixture
def old(make_registry: Callable[[str], Registry]) -> Registry:
    return make_registry("old")


@pytest.fixture
def new(make_registry: Callable[[str], Registry]) -> Registry:
    return make_registry("new")


def promote(registry: Registry, id: str, release: str, epoch: Epoch, at: float, **facts: Any) -> None:
    def document(version: int) -> dict[str, Any]:
        promotion = Promotion(
            id=id,
            release=make_release(release),
            version=version,
            policy=PromotionPolicy(),
            regions=REGIONS,
            ordered_at=at,
            ordered_in=epoch,
        )
        asked = facts.pop("asked", ())
        parts = {region: unasked(promotion, region) | {"started_at": at} for region in asked}
        return replace(promotion, parts=parts, **facts).to_json()

    assert registry.add_promotion(id, make_release(release), document, EVENT)
    known = registry.promotion(id)
    registry.save_promotion(id, known, running=known["state"] == "running", events=[])


def roll_back(registry: Registry, id: str, epoch: Epoch, at: float, **facts: Any) -> None:
    asked = {"model": MODEL, "version": None, "release": None, "regions": None, "reason": "slow"}
    order = RollbackOrder(
        id=id,
        asked=asked,
        model=MODEL,
        reason="slow",
        release=None,
        bad="v2",
        supersedes=[],
        regions=REGIONS,
        ordered_at=at,
        ordered_in=epoch,
    )
    order = replace(order, **facts)
    RollbackStore(registry, schema.rollback_orders).add(id, MODEL, order.to_json(), events=[], open=order.open)


def hand_over(source: Registry, target: Registry, *, led: Epoch = OLD, known: Epoch | None = None) -> None:
    """As it travels between two agents; `known`: the epoch in which the target led last."""
    papers = json.loads(json.dumps(make_papers(source, led)))
    merge_papers(target, papers, led=known, here="two")


def promotion(registry: Registry, id: str) -> Promotion:
    return read_promotion(registry.promotion(id))


def rollback(registry: Registry, id: str) -> RollbackOrder:
    return read_rollback_order(RollbackStore(registry, schema.rollback_orders).read(id))


def home_messages(registry: Registry) -> list[str]:
    return [entry["message"] for entry in registry.events(kind="home")]


def test_what_runs_runs_on_and_what_is_over_is_known(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, state="live")
    promote(old, "p-2", "v2", OLD, 2.0, asked=["one"])
    roll_back(old, "b-1", OLD, 3.0)
    hand_over(old, new)
    assert [promotion(new, id) for id in ("p-1", "p-2")] == [promotion(old, id) for id in ("p-1", "p-2")]
    assert rollback(new, "b-1") == rollback(old, "b-1")
    assert (promotion(new, "p-2").state, rollback(new, "b-1").open) == ("running", True)
    assert [new.release(name)[1] for name in ("v1", "v2")] == [1, 2]


def test_the_same_papers_again_change_nothing(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, state="live")
    promote(new, "p-9", "v9", NEW, 5.0)
    for _ in range(2):
        hand_over(old, new, known=NEW)
        told = home_messages(new), new.promotion("p-1"), new.promotion("p-9"), new.release("v1")[1]
    hand_over(old, new, known=NEW)
    assert told == (home_messages(new), new.promotion("p-1"), new.promotion("p-9"), new.release("v1")[1])
    assert len(told[0]) == 1


def test_a_lead_that_comes_back_brings_what_was_done_meanwhile(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0)
    hand_over(old, new)
    done = replace(promotion(new, "p-1"), state="live", finished_at=9.0)
    new.save_promotion("p-1", done.to_json(), running=False, events=[])
    hand_over(new, old, led=NEW, known=OLD)
    assert promotion(old, "p-1") == done


def test_what_was_open_and_the_later_home_region_never_heard_of_ends_where_that_one_ordered_something(
    old: Registry, new: Registry
) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, asked=["one"])
    roll_back(old, "b-1", OLD, 2.0)
    promote(new, "p-9", "v9", NEW, 5.0)
    hand_over(new, old, led=NEW, known=OLD)
    stale = promotion(old, "p-1")
    by = "p-1 was ordered in epoch 1 of one, and promotion p-9 came after it"
    assert (stale.state, stale.reason, stale.owed) == ("aborted", by, ["one"])
    assert (rollback(old, "b-1").state, rollback(old, "b-1").open) == ("superseded", False)
    assert promotion(old, "p-9").state == "running"


def test_a_promotion_owes_its_end_to_regions_that_a_later_one_may_never_have_reached(
    old: Registry, new: Registry
) -> None:
    promote(old, "p-1", "v1", OLD, 9.0, asked=["one"])
    promote(new, "p-9", "v9", NEW, 5.0, state="live")
    hand_over(old, new, known=NEW)
    ended = promotion(new, "p-1")
    assert (ended.state, ended.owed) == ("aborted", ["one"])
    assert ended.reason == "p-1 was ordered in epoch 1 of one, and promotion p-9 came after it"
    assert [entry["message"] for entry in new.events(kind="promotion", subject="p-1")] == [ended.reason]


def test_a_promotion_owes_its_end_where_a_later_rollback_does_not_reach(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, asked=["one", "three"])
    roll_back(new, "b-9", NEW, 5.0, regions=["two", "three"])
    hand_over(old, new, known=NEW)
    assert (promotion(new, "p-1").state, promotion(new, "p-1").owed) == ("aborted", ["one"])


def test_what_was_open_when_the_lead_was_lost_is_led_on_by_one_that_takes_it_back(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, asked=["one"])
    roll_back(old, "b-1", OLD, 2.0)
    before = promotion(old, "p-1"), rollback(old, "b-1")
    hand_over(new, old, led=NEW, known=OLD)
    assert (promotion(old, "p-1"), rollback(old, "b-1")) == before
    with pytest.raises(Conflict, match="still running"):
        promote(old, "p-2", "v2", Epoch(3, "one"), 9.0)


@pytest.mark.parametrize("first", ["old", "new"])
def test_of_two_home_regions_that_were_lost_the_later_ones_word_holds(
    old: Registry, new: Registry, make_registry: Callable[[str], Registry], first: str
) -> None:
    promote(old, "p-1", "v1", OLD, 9.0, asked=["one"])
    promote(new, "p-2", "v2", NEW, 5.0, asked=["two"])
    third, papers = make_registry("third"), {"old": (old, OLD), "new": (new, NEW)}
    for name in sorted(papers, key=lambda name: name != first):
        hand_over(papers[name][0], third, led=papers[name][1], known=Epoch(3, "three"))
    assert (promotion(third, "p-1").state, promotion(third, "p-1").owed) == ("aborted", ["one"])
    assert promotion(third, "p-2").state == "running"


def test_a_promotion_after_which_nothing_was_ordered_is_led_on(old: Registry, new: Registry) -> None:
    promote(new, "p-0", "v0", OLD, 0.5, state="live")
    promote(old, "p-1", "v1", OLD, 1.0, asked=["one"])
    hand_over(old, new, known=NEW)
    assert promotion(new, "p-1").state == "running"


def test_a_rollback_is_over_where_a_later_order_reaches(old: Registry, new: Registry) -> None:
    roll_back(old, "b-1", OLD, 1.0)
    promote(new, "p-9", "v9", NEW, 5.0, state="live", regions=["two", "three"])
    hand_over(old, new, known=NEW)
    kept = rollback(new, "b-1")
    assert kept.open
    assert {region: part["state"] for region, part in kept.parts.items()} == {"two": "failed", "three": "failed"}
    roll_back(new, "b-9", NEW, 6.0)
    hand_over(old, new, known=NEW)
    assert rollback(new, "b-1") == kept, "what is known here stays"


def test_one_number_for_two_releases_stays_with_the_later_epochs(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0, state="live")
    promote(new, "p-9", "v9", NEW, 5.0, state="live")
    hand_over(old, new, known=NEW)
    assert (new.release("v9")[1], new.release("v1")[1], promotion(new, "p-1").version) == (1, 2, 2)
    assert home_messages(new) == [f"version 1 of {MODEL} is another one in epoch 1 of one: what is known here stays"]
    assert new.events(kind="home")[0]["detail"] | {"epoch": None} == {"epoch": None, "here": "v9", "there": "v1"}
    hand_over(new, old, led=NEW, known=OLD)
    assert (old.release("v9")[1], old.release("v1")[1]) == (1, 2)


def test_one_id_for_two_orders_stays_with_the_later_epochs_and_both_are_kept(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0)
    promote(new, "p-1", "v9", NEW, 5.0)
    roll_back(old, "b-1", OLD, 2.0)
    roll_back(new, "b-1", NEW, 6.0)
    hand_over(old, new, known=NEW)
    assert (promotion(new, "p-1").release.id, rollback(new, "b-1").ordered_at) == ("v9", 6.0)
    sides = {entry["message"]: entry["detail"] for entry in new.events(kind="home")}
    told = sides["promotion p-1 is another one in epoch 1 of one: what is known here stays"]
    assert (told["here"]["release"]["id"], told["there"]["release"]["id"]) == ("v9", "v1")
    assert "rollback b-1 is another one in epoch 1 of one: what is known here stays" in sides
    hand_over(new, old, led=NEW, known=OLD)
    assert (promotion(old, "p-1").release.id, rollback(old, "b-1").ordered_at) == ("v9", 6.0)
    sides = {entry["message"]: entry["detail"] for entry in old.events(kind="home")}
    told = sides["promotion p-1 is another one in epoch 2 of two: what is known there stays"]
    assert (told["here"]["release"]["id"], told["there"]["release"]["id"]) == ("v1", "v9")


def test_one_release_id_with_two_contents_is_told_and_its_order_left_out(old: Registry, new: Registry) -> None:
    other = replace(make_release("v1"), bundle_digest="sha256:" + "9" * 64)
    new.add_release(other)
    promote(old, "p-1", "v1", OLD, 1.0)
    hand_over(old, new, known=NEW)
    assert new.release("v1")[0] == other
    assert new.promotions() == []
    assert home_messages(new) == ["release v1 is another one in epoch 1 of one: what is known here stays"]


def test_promotions_stay_frozen_under_the_next_home_region(old: Registry, new: Registry) -> None:
    frozen = {"frozen": True, "reason": "a fire", "actor": "operator"}
    old.set_override("promotions", frozen, EVENT)
    hand_over(old, new)
    assert new.override("promotions") == frozen
    new.set_override("promotions", {**frozen, "frozen": False}, EVENT)
    hand_over(old, new, known=NEW)
    assert new.override("promotions") == {**frozen, "frozen": False}


def test_papers_that_are_none_change_nothing(old: Registry, new: Registry) -> None:
    promote(old, "p-1", "v1", OLD, 1.0)
    sound = make_papers(old, OLD)
    for broken in ({}, {"led": None}, {**sound, "promotions": [{"id": "p-1"}]}, {**sound, "releases": None}):
        with pytest.raises(InvalidInput, match="malformed"):
            merge_papers(new, broken, led=None, here="two")
    assert (new.promotions(), new.releases()) == ([], [])
