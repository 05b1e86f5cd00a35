"""Each invariant of the simulation notices the bug that it is there for: the bug is planted, the promise breaks."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from serving.regions.acting.promotion_leader import PromotionLeader
from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.worker import Worker
from serving.regions.deciding import canary_decision
from serving.regions.deciding.promotion_state import Promotion
from serving.regions.deciding.rollout_decision import finish_replication
from serving.regions.deciding.rollout_revert import weights_restored
from serving.regions.deciding.rollout_state import Do, Rollout
from tests.simulation.simulation import simulate
from tests.simulation.story import Event, Story
from tests.simulation.world import World

PROMOTION = Event(at=0.0, what="promote", id="p-0", release="v2")
GOOD = Story(events=[PROMOTION])
BAD_AT_LAST = Story(events=[PROMOTION], bad=frozenset({("v2", "three")}))
Plant = Callable[..., None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    return monkeypatch.setattr


async def _nothing(*_: object, **__: object) -> None:
    return None


def breaks(story: Story) -> str:
    return "\n".join(simulate(0, story))


@pytest.mark.parametrize("story", [GOOD, BAD_AT_LAST], ids=["good", "bad at last"])
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
    assert "one does not know p-0 any more, which it acknowledged" in breaks(story)


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
    """The first promotion owes its end to a region that was cut off; the second puts the same release live there."""
    plant(PromotionLeader, "_due_debts", lambda leader, id: leader._store.read(id).owed)
    plant(RolloutWorker, "_is_overtaken", lambda worker, rollout: False)
    story = Story(
        events=[
            replace(PROMOTION, regions=("two", "three"), policy={"step_timeout_s": 10.0}),
            Event(at=14.0, what="cut", where="one", other="two", for_s=60.0),
            Event(at=70.0, what="promote", id="p-1", release="v2", regions=("two",)),
        ],
        bad=frozenset({("v2", "three")}),
    )
    assert "two serves v1, and the last word says v2" in breaks(story)


def test_a_loop_that_hangs_is_noticed(plant: Plant) -> None:
    async def hang(serving: ServingState) -> None:
        await asyncio.Event().wait()

    plant(ServingState, "look_after", hang)
    assert "one: serving: no progress" in breaks(GOOD)
