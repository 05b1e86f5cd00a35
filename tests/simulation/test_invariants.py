"""Each invariant of the simulation notices the bug that it is there for: the bug is planted, the promise breaks."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.worker import Worker
from serving.regions.deciding import canary_decision
from serving.regions.deciding.promotion_state import Promotion
from serving.regions.deciding.rollout_decision import finish_replication
from serving.regions.deciding.rollout_revert import weights_restored
from serving.regions.deciding.rollout_state import Do, Rollout
from serving.regions.leading import home
from serving.regions.leading.promotion_leader import PromotionLeader
from serving.regions.registry.epochs import EpochStore
from tests.simulation.simulation import simulate
from tests.simulation.story import Event, Story
from tests.simulation.world import World

PROMOTION = Event(at=0.0, what="promote", id="p-0", release="v2")
GOOD = Story(events=[PROMOTION])
BAD_AT_LAST = Story(events=[PROMOTION], bad=frozenset({("v2", "three")}))
TWO_HOMES = Story(
    events=[
        *(Event(at=6.0, what="cut", where="one", other=other, for_s=60.0) for other in ("two", "three")),
        Event(at=8.0, what="move_home", where="two", id="h-1", force=True),
        Event(at=20.0, what="promote", where="two", id="p-1", release="v3", regions=("two", "three"), patient=True),
        Event(at=21.0, what="promote", where="one", id="p-2", release="v4"),
    ]
)
"""The lead moves behind the back of a home region that is cut off, and both are given orders."""
Plant = Callable[..., None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    return monkeypatch.setattr


async def _nothing(*_: object, **__: object) -> None:
    return None


def breaks(story: Story) -> str:
    return "\n".join(simulate(0, story))


@pytest.mark.parametrize("story", [GOOD, BAD_AT_LAST, TWO_HOMES], ids=["good", "bad at last", "two homes"])
def test_without_a_planted_bug_nothing_is_broken(story: Story) -> None:
    assert simulate(0, story) == []


def test_a_bad_version_that_passes_its_gates_is_noticed(plant: Plant) -> None:
    plant(canary_decision, "judge", lambda *_, **__: [])
    assert "three serves v2, which is bad there" in breaks(BAD_AT_LAST)


def test_a_route_to_what_was_never_verified_is_noticed(plant: Plant) -> None:
    async def skip(worker: RolloutWorker, rollout: Rollout, _: Do) -> None:
        await worker._change(rollout, lambda now: finish_replication(now, worker._clock()), "bundle verified")

    plant(RolloutWorker, "_replicate", skip)
    assert "two routes to v2, which was never verified there" in breaks(GOOD)


def test_an_order_that_is_forgotten_is_noticed(plant: Plant) -> None:
    kill = World.kill

    async def kill_and_forget(world: World, event: Event) -> None:
        world.places[event.where].database.forget()
        await kill(world, event)

    plant(World, "kill", kill_and_forget)
    story = Story(events=[PROMOTION, Event(at=60.0, what="kill", where="one", for_s=5.0)])
    assert "one does not know p-0 any more, which one acknowledged" in breaks(story)


def test_a_rollout_that_nobody_goes_on_with_is_noticed(plant: Plant) -> None:
    work_on = Worker._work_on

    def work_elsewhere(worker: RolloutWorker, model: str) -> None:
        if worker._region.name != "two":
            work_on(worker, model)

    plant(RolloutWorker, "_work_on", work_elsewhere)
    assert "rollout p-0 is not settled in two" in breaks(GOOD)


def test_a_debt_that_is_never_paid_is_noticed(plant: Plant) -> None:
    async def wait(leader: PromotionLeader, promotion: Promotion) -> None:
        await asyncio.sleep(5.0)

    plant(PromotionLeader, "_pay_debts", wait)
    cut = Event(at=3.0, what="cut", where="one", other="two", for_s=120.0)
    assert "p-0 is still open at home" in breaks(Story(events=[PROMOTION, cut]))


def test_a_route_that_is_not_put_in_force_is_noticed(plant: Plant) -> None:
    async def shrug(serving: ServingState, planned: dict[str, Any]) -> None:
        return None

    async def forget(worker: RolloutWorker, rollout: Rollout, _: Do) -> None:
        await worker._change(rollout, lambda now: weights_restored(now, worker._clock()), "the old weights are back")

    plant(ServingState, "_put_in_force", shrug)
    plant(RolloutWorker, "_restore_weights", forget)
    assert "three routes to [('v2', 50), ('v1', 50)], and v1 is live" in breaks(BAD_AT_LAST)


def test_a_server_that_nobody_ends_is_noticed(plant: Plant) -> None:
    plant(ServingState, "_end_unwanted", _nothing)

    async def settle(worker: RolloutWorker, rollout: Rollout, release_id: str | None) -> None:
        await worker._change(rollout, lambda now: replace(now, settled=True), "settled")

    plant(RolloutWorker, "_stop", settle)
    assert "one runs a server of v1, which nobody wants" in breaks(GOOD)


def test_a_server_that_is_not_started_again_is_noticed(plant: Plant) -> None:
    plant(ServingState, "_run_live_servers", _nothing)
    story = Story(events=[PROMOTION, Event(at=60.0, what="crash_server", where="one")])
    assert "one runs no server of v2" in breaks(story)


def test_a_newer_word_that_an_older_one_undoes_is_noticed(plant: Plant) -> None:
    """The first promotion owes its end to a region that was cut off; the second puts the same release live there.

    The cut has to fall between the one region's going live and the other's failure, so several moments are tried.
    """
    plant(PromotionLeader, "_due_debts", lambda leader, id: leader._store.read(id).owed)
    plant(RolloutWorker, "_is_overtaken", lambda worker, rollout: False)

    def story(cut_at: float) -> Story:
        return Story(
            events=[
                replace(PROMOTION, regions=("two", "three"), policy={"step_timeout_s": 10.0}),
                Event(at=cut_at, what="cut", where="one", other="two", for_s=60.0),
                Event(at=70.0, what="promote", id="p-1", release="v2", regions=("two",)),
            ],
            bad=frozenset({("v2", "three")}),
        )

    moments = [8.0 + number for number in range(7)]
    assert any("two serves v1, and the last word says v2" in breaks(story(moment)) for moment in moments)


def test_a_loop_that_hangs_is_noticed(plant: Plant) -> None:
    async def hang(serving: ServingState) -> None:
        await asyncio.Event().wait()

    plant(ServingState, "look_after", hang)
    assert "one: serving: no progress" in breaks(GOOD)


def test_an_order_of_a_home_region_that_was_left_behind_is_noticed(plant: Plant) -> None:
    plant(EpochStore, "admit", lambda *_, **__: None)
    assert "\n".join(simulate(1, TWO_HOMES)) == "two serves v4, and the last word says v3"


def test_orders_that_the_next_home_region_does_not_hear_of_are_noticed(plant: Plant) -> None:
    plant(home, "merge_papers", lambda *_, **__: None)
    assert "two does not know p-0 any more, which one acknowledged" in breaks(
        Story(events=[PROMOTION, Event(at=40.0, what="move_home", where="two", id="h-1")])
    )


def test_two_regions_that_lead_are_noticed(plant: Plant) -> None:
    plant(home.Home, "look_after", _nothing)
    assert "one follows epoch 1 of one" in breaks(TWO_HOMES)
