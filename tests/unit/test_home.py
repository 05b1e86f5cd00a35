"""The lead as one agent sees it, over other agents that answer from memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import InvalidInput, Unreachable
from serving.regions.leading.handover import make_papers
from serving.regions.leading.home import Home
from serving.regions.leading.leader import Leader
from serving.regions.registry.epochs import Epoch, EpochStore
from serving.regions.registry.registry import Registry


class NoOrders(Leader):
    """Counts how often it looked for them."""

    resumed = 0

    def _open_orders(self) -> list[str]:
        self.resumed += 1
        return []

    async def _lead_to_the_end(self, id: str) -> None:
        """There are none."""


class MemoryAgent:
    """Follows what it is told, and hands over its papers."""

    def __init__(self, papers: dict[str, Any]) -> None:
        self.papers = papers
        self.away = False
        self.epoch: dict[str, Any] = {"number": 1, "home": "one"}

    async def get_home(self) -> dict[str, Any]:
        if self.away:
            raise Unreachable("it is away")
        return {"epoch": self.epoch}

    async def tell_home(self, told: dict[str, Any]) -> dict[str, Any]:
        if not self.away:
            self.epoch = told["epoch"]
        return await self.get_home()

    async def handover(self) -> dict[str, Any]:
        await self.get_home()
        return self.papers


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    yield opened
    opened.close()


async def test_papers_that_cannot_be_merged_keep_nobody_from_those_of_the_others(registry: Registry) -> None:
    sound = make_papers(registry, Epoch(1, "one"))
    peers = {"one": MemoryAgent({"led": {"number": 1, "home": "one"}, "releases": None}), "three": MemoryAgent(sound)}
    home = Home("two", {}, registry=registry, epochs=EpochStore(registry, "one"), peers=peers)
    leader = NoOrders("promotion", registry=registry)
    await home.start([leader])
    for peer in peers.values():
        peer.away = True
    await home.take(force=True, reason="both burn", actor="operator")
    assert leader.resumed == 1
    for peer in peers.values():
        peer.away = False
    await home.look_after()
    assert {peer.epoch["home"] for peer in peers.values()} == {"two"}
    assert leader.resumed == 2, "what three knew is led on"


async def test_what_is_taken_over_by_the_agent_that_leads_already_is_led_on(registry: Registry) -> None:
    """A restored home region begins another epoch."""
    other = MemoryAgent(make_papers(registry, Epoch(2, "two")))
    home = Home("one", {}, registry=registry, epochs=EpochStore(registry, "one"), peers={"two": other})
    leader = NoOrders("promotion", registry=registry)
    await home.start([leader])
    await home.take(force=True, reason="restored", actor="operator")
    assert leader.resumed == 2
    await home.look_after()
    assert leader.resumed == 2, "there is no news"


async def test_papers_that_cannot_be_merged_are_left_behind_by_force_only(registry: Registry) -> None:
    old = MemoryAgent({"led": {"number": 1, "home": "one"}, "releases": None})
    home = Home("two", {}, registry=registry, epochs=EpochStore(registry, "one"), peers={"one": old})
    await home.start([])
    with pytest.raises(InvalidInput, match="handover is malformed"):
        await home.take(force=False, reason="a drill", actor="operator")
    assert not home.leads
    await home.take(force=True, reason="it hands over rubbish", actor="operator")
    assert home.leads


@pytest.mark.parametrize("known", [False, True], ids=["new", "restored"])
async def test_a_registry_that_knows_less_than_the_other_regions_follows_them_before_anybody_leads(
    registry: Registry, known: bool
) -> None:
    """The topology file of a new region names itself, or the backup is older than the last move."""
    peer = MemoryAgent({"led": None})
    peer.epoch = {"number": 2, "home": "one"} if known else {"number": 1, "home": "one"}
    epochs = EpochStore(registry, "two")
    if known:
        epochs.begin()
    home = Home("two", {}, registry=registry, epochs=epochs, peers={"one": peer})
    leader = NoOrders("promotion", registry=registry)
    await home.start([leader])
    assert (epochs.present().home, leader.resumed) == ("one", 0)


async def test_a_region_whose_peers_are_away_follows_its_topology(registry: Registry) -> None:
    peer = MemoryAgent({"led": None})
    peer.away = True
    epochs = EpochStore(registry, "two")
    await Home("two", {}, registry=registry, epochs=epochs, peers={"one": peer}).start([])
    assert epochs.present() == Epoch(1, "two")
