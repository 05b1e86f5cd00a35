"""A region's rollouts over a real registry: what an order may still change, and what it may not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import CANARY, LIVE, Rollout
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region
from serving.regions.registry.epochs import EpochStore
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.servers.launcher import Launcher
from tests.fakes.rollouts import make_release

EVENT = Event(kind="rollout", subject="p", message="ordered", detail={})


class Here:
    """A region with v1, and v2 live by the rollout `p-1`."""

    def __init__(self, root: Path) -> None:
        self.now = 1.0
        self.registry = Registry(f"sqlite:///{root / 'registry.db'}", clock=lambda: self.now)
        self.worker = RolloutWorker(
            Region(name="here", gateway_url="", agent_url="", store_uri="", registry_url="", state_folder=root),
            registry=self.registry,
            launcher=cast(Launcher, None),
            serving=cast(ServingState, None),
            peers=cast(Peers, None),
            metrics=AgentMetrics(),
            epochs=EpochStore(self.registry, "here"),
            clock=lambda: self.now,
        )
        self.registry.add_release(make_release("v1"))
        self.add("p-1", state=LIVE, previous="v1", previous_version=1)
        live = LiveModel(model=make_release("v2").model, release_id="v2", previous_release_id="v1", reason=None)
        self.registry.set_live(live, EVENT)

    def add(self, id: str, **changes: Any) -> None:
        """A rollout of v2."""
        self.now += 1.0
        rollout = Rollout(id=id, region="here", release=make_release("v2"), version=2, policy=PromotionPolicy())
        rollout = replace(rollout, **changes)
        self.registry.add_rollout(id, rollout.release, 2, rollout.to_json(), EVENT)
        self.registry.save_rollout(id, rollout.to_json(), settled=rollout.settled)

    async def revert(self, id: str) -> dict[str, Any]:
        shown = await self.worker.revert_rollout(id, "an old debt")
        # What the worker would do next is none of these tests' business.
        await self.worker.close()
        return shown


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    made = Here(tmp_path)
    yield made
    made.registry.close()


async def test_a_rollout_that_is_live_is_taken_back(here: Here) -> None:
    shown = await here.revert("p-1")
    assert (shown["state"], shown["ending"], shown["settled"]) == (LIVE, "rolled_back", False)


async def test_what_a_later_rollout_found_live_is_not_taken_back_for_an_earlier_one(here: Here) -> None:
    here.add("p-2", state=LIVE, changed=False, settled=True)
    shown = await here.revert("p-1")
    assert (shown["state"], shown["ending"], shown["settled"]) == ("rolled_back", None, True)
    assert here.registry.rollout("p-2")["state"] == LIVE


@pytest.mark.parametrize("later", [{"state": CANARY}, {"state": LIVE, "ending": "rolled_back"}])
async def test_a_later_rollout_that_is_not_live_overtakes_nothing(here: Here, later: dict[str, Any]) -> None:
    here.add("p-2", **later)
    assert (await here.revert("p-1"))["ending"] == "rolled_back"


async def test_a_later_rollout_of_another_release_overtakes_nothing(here: Here) -> None:
    here.now += 1.0
    other = Rollout(id="p-3", region="here", release=make_release("v3"), version=3, policy=PromotionPolicy())
    document = replace(other, state=LIVE, settled=True).to_json()
    here.registry.add_rollout("p-3", other.release, 3, document, EVENT)
    assert (await here.revert("p-1"))["ending"] == "rolled_back"
