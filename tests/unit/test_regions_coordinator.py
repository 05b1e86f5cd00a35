"""The home region's part over regions that answer from memory: order, taking back, silence, lost followers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from serving.errors import Unreachable
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.promotion_leader import PromotionLeader, PromotionLeaderSettings
from serving.regions.places.topology import Region, Topology
from serving.regions.registry.registry import Registry
from serving.store import ArtifactStore
from tests.fakes.models import VARIANT, write_bundle

NAMES = ("one", "two", "three")
QUICK = PromotionLeaderSettings(poll_s=0.0, first_backoff_s=0.01, max_backoff_s=0.01, owed_every_s=0.01)


class MemoryRegion:
    """Goes live when it is asked a second time, unless it is to fail or is away."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls
        self.away = False
        self.fails = False
        self.stalls = False
        self.part: dict[str, Any] | None = None

    def _call(self, what: str) -> None:
        if self.away:
            raise Unreachable(f"{self.name} is away")
        if not self.calls or self.calls[-1] != f"{what} {self.name}":
            self.calls.append(f"{what} {self.name}")

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        self._call("prepare" if order.get("hold") else "order")
        if self.part is None:
            self.part = {"id": id, "region": self.name, "state": "canary", "percent": 5, "reason": None, "steps": []}
            self.part |= {"changed": True, "revert_failure": None, "ending": None, "started_at": 1.0}
        elif self.part["state"] == "canary" and not self.stalls and not order.get("hold"):
            state = "rolled_back" if self.fails else "live"
            self.part = self.part | {"state": state, "reason": "it is bad" if self.fails else None}
        return self.part

    async def get_rollout(self, id: str) -> dict[str, Any]:
        raise AssertionError("the promotion_leader follows by ordering again")

    async def revert_rollout(self, id: str, reason: str) -> dict[str, Any]:
        self._call("revert")
        assert self.part is not None
        state = "rolled_back" if self.part["state"] == "live" else "aborted"
        self.part = self.part | {"state": state, "reason": reason}
        return self.part


class NoRollbacks:
    def refuse_promotion(self, model: str) -> None:
        """None is running."""

    def forget_debts(self, model: str) -> None:
        """There are none."""


class Home:
    """A promotion_leader over three regions in memory, and what was asked of them."""

    def __init__(self, root: Path) -> None:
        self.calls: list[str] = []
        self.regions = {name: MemoryRegion(name, self.calls) for name in NAMES}
        self.now = 0.0
        self.root = root
        self.registry = Registry(f"sqlite:///{root / 'registry.db'}")
        self.promotion_leader = self._make()

    def _make(self) -> PromotionLeader:
        regions = [_region(name, self.root) for name in NAMES]
        folders = {"token_folder": self.root, "key_folder": self.root / "keys"}
        return PromotionLeader(
            Topology(regions=regions, home_region="one", **folders),
            registry=self.registry,
            regions=self.regions,
            metrics=AgentMetrics(),
            runtimes={},
            rollbacks=NoRollbacks(),
            settings=QUICK,
            clock=lambda: self.now,
        )

    async def restart(self) -> None:
        await self.promotion_leader.close()
        self.promotion_leader = self._make()
        self.promotion_leader.resume()

    async def order(self, **policy: Any) -> None:
        write_bundle(self.root / "bundle", self.root / "keys")
        store = ArtifactStore((self.root / "store").as_uri())
        runtime = {"engine": "onnxruntime", "variant": VARIANT}
        release = {"id": "rel-1", "model": "m", "bundle_digest": store.put_bundle(self.root / "bundle")}
        release |= {"store_uri": store.uri, "runtime": runtime}
        order = {"schema_version": 1, "release": release, "policy": policy, "regions": list(NAMES)}
        await self.promotion_leader.order("p-1", order)

    async def finished(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while self.promotion_leader.running("p-1"):
                await asyncio.sleep(0.001)
        return self.promotion_leader.show("p-1")


def _region(name: str, root: Path) -> Region:
    return Region(
        name=name, gateway_url="", agent_url="", store_uri="", registry_url="", state_folder=root / "regions" / name
    )


@contextlib.asynccontextmanager
async def home(root: Path) -> AsyncIterator[Home]:
    made = Home(root)
    try:
        yield made
    finally:
        await made.promotion_leader.close()
        made.registry.close()


def states(promotion: dict[str, Any]) -> list[str]:
    return [part["state"] for part in promotion["regions"]]


async def test_regions_go_live_in_the_order_of_the_promotion(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order()
        promotion = await at_home.finished()
    assert (promotion["state"], states(promotion)) == ("live", ["live"] * 3)
    assert at_home.calls == ["order one", "order two", "order three"]


async def test_later_regions_prepare_while_the_first_is_at_work(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order(prepare_ahead=1)
        promotion = await at_home.finished()
    assert states(promotion) == ["live"] * 3
    first = {call: at_home.calls.index(call) for call in reversed(at_home.calls)}
    assert first["prepare two"] < first["order two"]
    assert first["order one"] < first["prepare three"] < first["order three"]


async def test_regions_that_prepared_are_taken_back_when_the_first_fails(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].fails = True
        await at_home.order(prepare_ahead=2)
        promotion = await at_home.finished()
    assert promotion["reason"] == "it is bad"
    assert states(promotion) == ["rolled_back", "aborted", "aborted"]


async def test_a_region_whose_server_does_not_start_ends_the_promotion_before_its_turn(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order(prepare_ahead=1)
        while at_home.regions["two"].part is None:
            await asyncio.sleep(0.001)
        at_home.regions["two"].part |= {"state": "rolled_back", "reason": "no server"}
        promotion = await at_home.finished()
    assert (promotion["state"], promotion["reason"]) == ("rolled_back", "no server")
    assert states(promotion) == ["aborted", "rolled_back", "queued"]


async def test_a_silent_later_region_does_not_hold_up_the_first(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["three"].away = True
        await at_home.order(prepare_ahead=2)
        async with asyncio.timeout(30):
            while "order two" not in at_home.calls:
                await asyncio.sleep(0.001)
        at_home.regions["three"].away = False
        promotion = await at_home.finished()
    assert states(promotion) == ["live"] * 3


async def test_a_failing_region_takes_the_earlier_ones_back_in_reverse(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["three"].fails = True
        await at_home.order()
        promotion = await at_home.finished()
    assert (promotion["state"], promotion["reason"]) == ("rolled_back", "it is bad")
    assert at_home.calls[3:] == ["revert two", "revert one"]
    assert states(promotion) == ["rolled_back"] * 3


async def test_scope_region_leaves_the_earlier_ones_alone(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["two"].fails = True
        await at_home.order(rollback_scope="region")
        promotion = await at_home.finished()
    assert states(promotion) == ["live", "rolled_back", "queued"]
    assert at_home.calls == ["order one", "order two"]


async def test_a_region_that_was_live_already_is_not_taken_back(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        part = {"id": "p-1", "region": "one", "state": "live", "percent": None, "reason": None, "steps": []}
        part |= {"changed": False, "revert_failure": None, "ending": None, "started_at": 1.0}
        at_home.regions["one"].part = part
        at_home.regions["two"].fails = True
        await at_home.order()
        promotion = await at_home.finished()
    assert states(promotion) == ["live", "rolled_back", "queued"]


async def test_an_abort_is_carried_out_by_the_next_home_agent(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["two"].stalls = True
        await at_home.order()
        while "order two" not in at_home.calls:
            await asyncio.sleep(0.001)
        await at_home.promotion_leader.close()
        at_home.promotion_leader.abort("p-1")
        await at_home.restart()
        promotion = await at_home.finished()
    assert (promotion["state"], states(promotion)) == ("aborted", ["rolled_back", "aborted", "queued"])


async def test_a_silent_region_ends_the_promotion_and_is_taken_back_when_it_answers(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["two"].stalls = True
        await at_home.order(step_timeout_s=10.0)
        while "order two" not in at_home.calls:
            await asyncio.sleep(0.001)
        at_home.regions["two"].away = True
        async with asyncio.timeout(30):
            while at_home.promotion_leader.running("p-1"):
                at_home.now += 1.0
                await asyncio.sleep(0.001)
        promotion = at_home.promotion_leader.show("p-1")
        assert promotion["state"] == "rolled_back"
        assert promotion["reason"].startswith("two did not answer for 10 s")
        assert states(promotion) == ["rolled_back", "canary", "queued"]
        await at_home.restart()
        at_home.regions["two"].away = False
        async with asyncio.timeout(30):
            while states(at_home.promotion_leader.show("p-1"))[1] != "aborted":
                await asyncio.sleep(0.001)


async def test_a_promotion_that_nobody_follows_is_taken_back_if_its_policy_says_so(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order(on_follower_lost="rollback", follower_lease_s=60.0)
        at_home.now = 61.0
        promotion = await at_home.finished()
    assert promotion["state"] == "rolled_back"
    assert promotion["reason"] == "nobody followed the promotion for 60 s"


async def test_following_keeps_the_lease(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order(on_follower_lost="rollback", follower_lease_s=60.0)
        for _ in range(5):
            at_home.now += 50.0
            at_home.promotion_leader.show("p-1")
            await asyncio.sleep(0.01)
        at_home.regions["one"].stalls = False
        assert (await at_home.finished())["state"] == "live"
