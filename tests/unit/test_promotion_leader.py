"""The home region's part over regions that answer from memory: order, taking back, silence, lost followers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Conflict, Unreachable
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.deciding.promotion_state import read_promotion
from serving.regions.deciding.timing import Timing
from serving.regions.leading.promotion_leader import PromotionLeader
from serving.regions.leading.promotion_orders import PromotionOrders
from serving.regions.places.topology import Region, Topology
from serving.regions.registry.epochs import Epoch
from serving.regions.registry.registry import Event, Registry
from serving.releases import Release, check_name
from serving.store import ArtifactStore
from tests.fakes.models import VARIANT, write_bundle

NAMES = ("one", "two", "three")
QUICK = Timing(promotion_poll_s=0.0, first_backoff_s=0.01, max_backoff_s=0.01, owed_every_s=0.01, watch_poll_s=0.01)


class MemoryRegion:
    """Goes live when it is asked a second time, unless it is to fail or is away."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls
        self.away = False
        self.fails = False
        self.stalls = False
        self.watches = False
        self.regrets = False
        self.orders: list[dict[str, Any]] = []
        self.part: dict[str, Any] | None = None

    def _call(self, what: str) -> None:
        if self.away:
            raise Unreachable(f"{self.name} is away")
        if not self.calls or self.calls[-1] != f"{what} {self.name}":
            self.calls.append(f"{what} {self.name}")

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        self._call("prepare" if order.get("hold") else "order")
        self.orders.append(order)
        if self.part is None:
            self.part = {"id": id, "region": self.name, "state": "canary", "percent": 5, "reason": None, "steps": []}
            self.part |= {
                "changed": True,
                "revert_failure": None,
                "ending": None,
                "started_at": 1.0,
                "held": bool(order.get("hold")),
            }
            self.part |= {"settled": False, "evidence": [{"from": self.name}]}
        elif self.part["state"] == "canary" and not self.stalls and not order.get("hold"):
            state = "rolled_back" if self.fails else "live"
            self.part = self.part | {"state": state, "reason": "it is bad" if self.fails else None}
        return self.part

    async def get_rollout(self, id: str) -> dict[str, Any]:
        """Asked only while it watches what it put live."""
        assert self.part is not None
        assert self.part["state"] != "canary"
        if self.watches and self.regrets:
            self.part = self.part | {"state": "rolled_back", "reason": "it turned bad", "settled": True}
        elif not self.watches:
            self.part = self.part | {"settled": True}
        return self.part

    async def revert_rollout(self, id: str, reason: str) -> dict[str, Any]:
        self._call("revert")
        assert self.part is not None
        state = "rolled_back" if self.part["state"] == "live" else "aborted"
        self.part = self.part | {"state": state, "reason": reason}
        return self.part


class NoRollbacks:
    def refuse_promotion(self, model: str) -> None:
        """None is running."""

    def forget_debts(self, model: str, regions: list[str]) -> None:
        """There are none."""


class Home:
    """A leader over three regions in memory, and what was asked of them."""

    def __init__(self, root: Path) -> None:
        self.calls: list[str] = []
        self.regions = {name: MemoryRegion(name, self.calls) for name in NAMES}
        self.now = 0.0
        self.root = root
        self.registry = Registry(f"sqlite:///{root / 'registry.db'}")
        self._make()

    def _make(self) -> None:
        regions = [_region(name, self.root) for name in NAMES]
        folders = {"token_folder": self.root, "key_folder": self.root / "keys"}
        self.leader = PromotionLeader(
            registry=self.registry,
            regions=self.regions,
            metrics=AgentMetrics(),
            timing=QUICK,
            clock=lambda: self.now,
        )
        self.orders = PromotionOrders(
            Topology(regions=regions, home_region="one", scorers=["tests.fakes.scorers:kind"], **folders),
            registry=self.registry,
            require=lambda: Epoch(1, "one"),
            runtimes={},
            rollbacks=NoRollbacks(),
            leading=self.leader,
            clock=lambda: self.now,
        )

    async def restart(self) -> None:
        await self.leader.close()
        self._make()
        await self.leader.resume()

    async def order(self, **policy: Any) -> None:
        write_bundle(self.root / "bundle", self.root / "keys")
        store = ArtifactStore((self.root / "store").as_uri())
        runtime = {"engine": "onnxruntime", "variant": VARIANT}
        release = {"id": "rel-1", "model": "m", "bundle_digest": store.put_bundle(self.root / "bundle")}
        release |= {"store_uri": store.uri, "runtime": runtime}
        order = {"schema_version": 1, "release": release, "policy": policy, "regions": list(NAMES)}
        await self.orders.order("p-1", order, actor="promoter")

    async def finished(self, id: str = "p-1") -> dict[str, Any]:
        async with asyncio.timeout(30):
            while await self.orders.running(id):
                await asyncio.sleep(0.001)
        return await self.orders.show(id)


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
        await made.leader.close()
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
        part |= {"changed": False, "revert_failure": None, "ending": None, "started_at": 1.0, "settled": True}
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
        await at_home.leader.close()
        await at_home.orders.abort("p-1", actor="operator")
        await at_home.restart()
        promotion = await at_home.finished()
    assert (promotion["state"], states(promotion)) == ("aborted", ["rolled_back", "aborted", "queued"])


async def test_a_silent_region_ends_the_promotion_and_is_taken_back_when_it_answers(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["two"].stalls = True
        await at_home.order(step_timeout_s=10.0, bake_s=0.0)
        while "order two" not in at_home.calls:
            await asyncio.sleep(0.001)
        at_home.regions["two"].away = True
        async with asyncio.timeout(30):
            while await at_home.orders.running("p-1"):
                at_home.now += 1.0
                await asyncio.sleep(0.001)
        promotion = await at_home.orders.show("p-1")
        assert promotion["state"] == "rolled_back"
        assert promotion["reason"].startswith("two did not answer for 10 s")
        assert states(promotion) == ["rolled_back", "canary", "queued"]
        await at_home.restart()
        at_home.regions["two"].away = False
        async with asyncio.timeout(30):
            while states(await at_home.orders.show("p-1"))[1] != "aborted":
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
            await at_home.orders.show("p-1")
            await asyncio.sleep(0.01)
        at_home.regions["one"].stalls = False
        assert (await at_home.finished())["state"] == "live"


async def test_a_leader_that_leads_again_counts_the_lease_from_then_on(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order(on_follower_lost="rollback", follower_lease_s=60.0)
        await at_home.leader.close()
        at_home.now += 600.0
        await at_home.leader.resume()
        at_home.regions["one"].stalls = False
        assert (await at_home.finished())["state"] == "live"


async def test_each_region_is_told_what_those_before_it_counted(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order(prepare_ahead=1)
        promotion = await at_home.finished()
    told = {name: region.orders[0]["evidence"] for name, region in at_home.regions.items()}
    assert told["one"] == []
    assert {"from": "one"} in told["three"]
    last = [
        order["evidence"] for order in at_home.regions["two"].orders if "evidence" in order and not order.get("hold")
    ]
    assert {"from": "one"} in last[0]
    assert {order["regions"] for order in at_home.regions["one"].orders} == {3}
    assert all("evidence" not in part for part in promotion["regions"])


async def test_a_pause_reaches_the_region_and_stops_before_the_next(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order()
        while "order one" not in at_home.calls:
            await asyncio.sleep(0.001)
        await at_home.orders.pause("p-1", actor="promoter for ann")
        while not (orders := at_home.regions["one"].orders) or not orders[-1]["paused"]:
            await asyncio.sleep(0.001)
        at_home.regions["one"].stalls = False
        while states(await at_home.orders.show("p-1"))[0] != "live":
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert not at_home.regions["two"].orders
        assert (await at_home.orders.resume("p-1", actor="promoter for ann"))["paused"] is False
        promotion = await at_home.finished()
    assert states(promotion) == ["live"] * 3


async def test_a_persons_word_reaches_every_region_that_follows(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order()
        shown = await at_home.orders.promote("p-1", actor="operator for ann")
        assert shown["promoted_by"] == "operator for ann"
        at_home.regions["one"].stalls = False
        await at_home.finished()
    assert at_home.regions["one"].orders[-1]["promoted_by"] == "operator for ann"
    assert all(order["promoted_by"] == "operator for ann" for order in at_home.regions["three"].orders)


async def test_what_has_finished_is_not_paused_resumed_or_promoted(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order()
        await at_home.finished()
        for what in (at_home.orders.pause, at_home.orders.resume, at_home.orders.promote):
            with pytest.raises(Conflict, match="got live, expected one that is running"):
                await what("p-1", actor="operator")


async def test_a_failed_promotion_is_tried_again_under_an_id_of_its_own(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].fails = True
        await at_home.order()
        failed = await at_home.finished()
        at_home.regions["one"].fails, at_home.regions["one"].part = False, None
        again, new = await at_home.orders.retry("p-1", actor="promoter for ann")
        assert (again["id"], again["attempt"], again["release"], new) == ("rel-1.2", 2, failed["release"], True)
        with pytest.raises(Conflict, match="still running"):
            await at_home.orders.retry("p-1", actor="promoter")
        for region in at_home.regions.values():
            region.part = None
        promotion = await at_home.finished("rel-1.2")
        assert (promotion["state"], promotion["version"], promotion["actor"]) == ("live", 1, "promoter for ann")
        with pytest.raises(Conflict, match="not to be tried again"):
            await at_home.orders.retry("rel-1.2", actor="promoter")
        assert (await at_home.orders.show("p-1"))["state"] == "rolled_back"


async def test_another_attempt_takes_no_name_of_another_release_and_none_that_is_too_long(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].fails = True
        await at_home.order()
        await at_home.finished()
        document = at_home.registry.promotion("p-1")
        release = Release.from_json({**document["release"], "id": "rel-1.2"})
        event = Event(kind="promotion", subject="rel-1.2", message="ordered", detail={})
        at_home.registry.add_promotion("rel-1.2", release, lambda version: document, event)
        at_home.registry.save_promotion(
            "rel-1.2", {**document, "id": "rel-1.2", "release": release.to_json()}, running=False, events=[]
        )
        again, _ = await at_home.orders.retry("p-1", actor="promoter")
        assert (again["id"], again["release"], again["attempt"]) == ("rel-1.3", "rel-1", 2)
        await at_home.finished("rel-1.3")
        long = "r" * 128
        document["release"]["id"] = long
        at_home.registry.save_promotion("p-1", document, running=False, events=[])
        again, _ = await at_home.orders.retry("p-1", actor="promoter")
        check_name("promotion id", again["id"])
        assert again["id"] == "r" * 126 + ".2"


async def test_a_promotion_of_regions_that_are_gone_is_not_tried_again(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].fails = True
        await at_home.order()
        await at_home.finished()
        document = {**at_home.registry.promotion("p-1"), "regions": ["one", "closed"]}
        at_home.registry.save_promotion("p-1", document, running=False, events=[])
        expected = r"names regions that are gone, got \[.closed.\], expected one"
        with pytest.raises(Conflict, match=expected):
            await at_home.orders.retry("p-1", actor="promoter")


async def test_the_journal_names_who_ordered_each_change(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].stalls = True
        await at_home.order()
        await at_home.orders.pause("p-1", actor="promoter for ann")
        await at_home.orders.abort("p-1", actor="operator for bob")
        promotion = await at_home.finished()
        entries = at_home.registry.events(kind="promotion", subject="p-1")
    named = [(entry["message"], entry["detail"].get("actor")) for entry in entries]
    assert ("ordered by promoter", "promoter") in named
    assert ("paused by promoter for ann", "promoter for ann") in named
    assert ("aborting: aborted by operator for bob", "operator for bob") in named
    assert promotion["reason"] == "aborted by operator for bob"


async def test_a_region_that_goes_back_while_it_watches_takes_the_others_along(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        for region in at_home.regions.values():
            region.watches = True
        await at_home.order()
        promotion = await at_home.finished()
        assert (promotion["state"], promotion["watching"]) == ("live", True)
        at_home.regions["two"].regrets = True
        async with asyncio.timeout(30):
            while (promotion := await at_home.orders.show("p-1"))["state"] != "rolled_back":
                await asyncio.sleep(0.001)
    assert (promotion["reason"], states(promotion)) == ("it turned bad", ["rolled_back"] * 3)
    assert at_home.calls[3:] == ["revert three", "revert one"]


@pytest.mark.parametrize("paused", [True, False])
async def test_a_region_that_goes_back_while_the_next_is_at_work_ends_the_promotion(
    tmp_path: Path, paused: bool
) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].watches = True
        at_home.regions["two"].stalls = True
        await at_home.order()
        async with asyncio.timeout(30):
            while at_home.regions["two"].part is None:
                await asyncio.sleep(0.001)
        if paused:
            await at_home.orders.pause("p-1", actor="promoter")
        at_home.regions["one"].regrets = True
        at_home.now += 1.0
        promotion = await at_home.finished()
    assert (promotion["state"], promotion["reason"]) == ("rolled_back", "it turned bad")
    assert states(promotion)[:2] == ["rolled_back", "aborted"]


@pytest.mark.parametrize("regrets", [True, False])
async def test_a_rollback_that_comes_while_a_region_is_asked_ends_the_watch(tmp_path: Path, regrets: bool) -> None:
    async with home(tmp_path) as at_home:
        for region in at_home.regions.values():
            region.watches = True
        await at_home.order()
        await at_home.finished()
        asked, answered = at_home.regions["one"].get_rollout, asyncio.Event()

        async def rolled_back_meanwhile(id: str) -> dict[str, Any]:
            # What RollbackLeader commits with its order.
            document = {**at_home.registry.promotion(id), "watching": False}
            at_home.registry.save_promotion(id, document, running=False, events=[])
            answered.set()
            return await asked(id)

        at_home.regions["one"].regrets = regrets
        at_home.regions["one"].get_rollout = rolled_back_meanwhile  # type: ignore[method-assign]  # in the midst of it
        await asyncio.wait_for(answered.wait(), 30)
        await asyncio.sleep(0.05)
        promotion = await at_home.orders.show("p-1")
    assert (promotion["state"], promotion["watching"]) == ("live", False)
    assert not [call for call in at_home.calls if call.startswith("revert")]


async def test_what_an_earlier_agent_said_of_its_region_is_shown_with_todays_fields(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order()
        await at_home.finished()
        told = (await at_home.orders.show("p-1"))["regions"][0]
        assert "paused" not in (at_home.regions["one"].part or {})
        assert (told["paused"], told["waiting_for"], told["watching"]) == (False, None, False)


async def test_the_watch_ends_once_every_region_has_settled(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        await at_home.order()
        await at_home.finished()
        async with asyncio.timeout(30):
            while (await at_home.orders.show("p-1"))["watching"]:
                await asyncio.sleep(0.001)


async def test_only_a_scorer_of_the_topology_may_be_named(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        with pytest.raises(Conflict, match=r"got os:system, expected tests\.fakes\.scorers:kind"):
            await at_home.order(completions_share=0.5, completion_scorer="os:system")
        await at_home.order(completions_share=0.5, completion_scorer="tests.fakes.scorers:kind")
        await at_home.finished()


async def test_what_failed_before_a_newer_version_went_live_is_not_tried_again(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["one"].fails = True
        await at_home.order()
        await at_home.finished()
        for region in at_home.regions.values():
            region.fails, region.part = False, None
        release = {**at_home.registry.promotion("p-1")["release"], "id": "rel-2"}
        order = {"schema_version": 1, "release": release, "policy": {}, "regions": list(NAMES)}
        await at_home.orders.order("p-2", order, actor="promoter")
        assert (await at_home.finished("p-2"))["version"] == 2
        with pytest.raises(Conflict, match=r"older than what is live, got version 1, and p-2 went live with version 2"):
            await at_home.orders.retry("p-1", actor="promoter")


async def test_a_debt_is_dropped_once_a_later_promotion_is_live_in_the_region(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["two"].away = True
        await at_home.order(step_timeout_s=10.0, bake_s=0.0)
        async with asyncio.timeout(30):
            while await at_home.orders.running("p-1"):
                at_home.now += 1.0
                await asyncio.sleep(0.001)
        document = at_home.registry.promotion("p-1")
        assert document["owed"] == ["two"]
        later = {**document, "id": "p-2", "state": "live", "owed": [], "ordered_at": at_home.now + 1.0}
        later["parts"] = {"two": {**document["parts"]["two"], "state": "live", "settled": True}}
        event = Event(kind="promotion", subject="p-2", message="ordered", detail={})
        at_home.now += 1.0
        at_home.registry.add_promotion("p-2", read_promotion(document).release, lambda version: later, event)
        at_home.registry.save_promotion("p-2", later, running=False, events=[])
        at_home.calls.clear()
        at_home.regions["two"].away = False
        async with asyncio.timeout(30):
            while at_home.registry.promotion("p-1")["owed"]:
                await asyncio.sleep(0.001)
        told = [entry["message"] for entry in at_home.registry.events(kind="promotion", subject="p-1")]
    assert at_home.calls == []
    assert "two need not be taken back: p-2 is live there" in told


async def test_a_dead_region_keeps_no_other_from_being_taken_back(tmp_path: Path) -> None:
    async with home(tmp_path) as at_home:
        at_home.regions["three"].stalls = True
        await at_home.order(step_timeout_s=10.0, bake_s=0.0)
        while "order three" not in at_home.calls:
            await asyncio.sleep(0.001)
        at_home.regions["two"].away = True
        await at_home.orders.abort("p-1", actor="operator")
        async with asyncio.timeout(30):
            while states(await at_home.orders.show("p-1")) != ["rolled_back", "live", "aborted"]:
                await asyncio.sleep(0.001)
        # Time stands still: nobody's patience has run out.
        assert await at_home.orders.running("p-1")
