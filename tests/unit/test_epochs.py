"""Epochs: which region leads, what is refused because of it, and the log of them all."""

from pathlib import Path
from typing import Any

import pytest

from serving.errors import Fenced, InvalidInput
from serving.regions.registry.epochs import Epoch, EpochStore, read_epoch
from serving.regions.registry.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    opened = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    yield opened
    opened.close()


@pytest.fixture
def epochs(registry: Registry) -> EpochStore:
    return EpochStore(registry, "one")


def keep(epochs: EpochStore, number: int, home: str) -> bool:
    return epochs.keep(Epoch(number, home), actor="operator", reason="a drill")


def test_the_topologys_home_region_leads_until_somebody_moves_the_lead(epochs: EpochStore) -> None:
    assert epochs.present() == Epoch(1, "one")
    epochs.begin()
    epochs.begin()
    assert [(entry["number"], entry["home"], entry["actor"]) for entry in epochs.log()] == [(1, "one", "topology")]


def test_a_topology_that_names_another_home_region_later_moves_nothing(registry: Registry, epochs: EpochStore) -> None:
    epochs.begin()
    edited = EpochStore(registry, "two")
    edited.begin()
    assert edited.present() == Epoch(1, "one")
    edited.admit(None, what="rollout p-1")
    assert edited.present() == Epoch(1, "one")


def test_a_later_epoch_is_followed_and_told_in_the_journal(registry: Registry, epochs: EpochStore) -> None:
    epochs.begin()
    assert keep(epochs, 2, "two")
    assert not keep(epochs, 2, "two")
    assert epochs.present() == Epoch(2, "two")
    messages = [entry["message"] for entry in registry.events(kind="home")]
    assert messages == ["epoch 1 of one begins: the topology names it", "epoch 2 of two begins: a drill"]


def test_an_earlier_epoch_is_noted_and_changes_nothing(registry: Registry, epochs: EpochStore) -> None:
    epochs.begin()
    keep(epochs, 3, "three")
    assert not keep(epochs, 2, "two")
    assert epochs.present() == Epoch(3, "three")
    assert [entry["number"] for entry in epochs.log()] == [1, 2, 3]
    assert registry.events(kind="home")[-1]["message"] == "epoch 2 of two was taken too, and epoch 3 of three goes on"


def test_two_operators_who_take_one_number_get_two_epochs_and_everybody_follows_the_same(tmp_path: Path) -> None:
    followed = []
    for name, order in (("left", ("two", "three")), ("right", ("three", "two"))):
        registry = Registry(f"sqlite:///{tmp_path / name}.db")
        epochs = EpochStore(registry, "one")
        epochs.begin()
        for home in order:
            keep(epochs, 2, home)
        followed.append((epochs.present(), [(entry["number"], entry["home"]) for entry in epochs.log()]))
        registry.close()
    assert followed[0] == followed[1]
    assert followed[0][0] == Epoch(2, "two")


def test_an_order_of_an_earlier_epoch_is_refused_and_one_of_a_later_is_followed(epochs: EpochStore) -> None:
    epochs.begin()
    epochs.admit({"number": 1, "home": "one"}, what="rollout p-1")
    epochs.admit({"number": 2, "home": "two"}, what="rollout p-2")
    assert epochs.present() == Epoch(2, "two")
    with pytest.raises(Fenced, match=r"rollout p-1 comes too late, got an order of epoch 1 of one, expected one of ep"):
        epochs.admit({"number": 1, "home": "one"}, what="rollout p-1")
    with pytest.raises(Fenced, match="epoch 2 of three"):
        epochs.admit({"number": 2, "home": "three"}, what="rollout p-1")


def test_an_agent_that_knows_no_epochs_orders_in_the_first(epochs: EpochStore) -> None:
    epochs.admit(None, what="rollout p-1")
    keep(epochs, 2, "two")
    with pytest.raises(Fenced, match="epoch 1 of one"):
        epochs.admit(None, what="rollout p-1")


@pytest.mark.parametrize(
    "raw",
    [
        7,
        {},
        {"number": "1", "home": "one"},
        {"number": True, "home": "one"},
        {"number": -1, "home": "one"},
        {"number": 2**53, "home": "one"},
        {"number": 1, "home": None},
    ],
)
def test_what_is_no_epoch_is_refused(epochs: EpochStore, raw: Any) -> None:
    with pytest.raises(InvalidInput, match="epoch is malformed"):
        read_epoch(raw)
    with pytest.raises(InvalidInput, match="epoch is malformed"):
        epochs.admit(raw, what="rollout p-1")
