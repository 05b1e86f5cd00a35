"""Releases that went bad after evaluation are rolled back by themselves, and no user notices."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flightpath.local.demo_policy import CLASSIFIERS
from serving.credentials import SigningKey
from serving.store import ArtifactStore
from tests.e2e.conftest import FirstRelease, World, users
from tests.fakes.damage import Damage, damaged_bundle, scale_one_layer_wrongly, shuffle_weights, write_json

pytestmark = pytest.mark.timeout(900)

_POLICY = replace(CLASSIFIERS, min_requests=30).to_json()


def _promote(world: World, tmp_path: Path, release: str, bundle: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    plan = {**world.read("resnet-digits-1", "plan"), "release_id": release}
    return world.pyflyte(
        "run",
        "workflows/promotion.py",
        "promotion",
        "--plan",
        str(write_json(tmp_path / "plan.json", plan)),
        "--bundle",
        str(write_json(tmp_path / "bundle.json", bundle)),
        "--policy",
        json.dumps(_POLICY),
    )


@pytest.mark.parametrize(
    ("name", "damage"), [("shuffled-weights", shuffle_weights), ("wrong-scale", scale_one_layer_wrongly)]
)
def test_a_damaged_model_is_rolled_back_by_itself(
    world: World, first_release: FirstRelease, tmp_path: Path, name: str, damage: Damage
) -> None:
    before = world.served("resnet-digits")
    bundle = world.read(first_release.release_id, "bundle")
    bundle["digest"] = damaged_bundle(
        ArtifactStore((world.root / "store").as_uri()),
        bundle["digest"],
        SigningKey.ensure(world.root / "keys"),
        bundle["variant"],
        damage,
        tmp_path,
    )
    with users(world, "resnet-digits", "resnet-digits-1", tmp_path / "traffic.json"):
        done = _promote(world, tmp_path, name, bundle)
    assert done.returncode == 1
    assert f"flightpath: release {name} is not live, got rolled_back: " in done.stderr
    assert "us-east" in done.stderr
    assert "allowed" in done.stderr
    _check_nobody_noticed(world, tmp_path, before)


def test_a_model_server_that_crashes_on_its_tenth_request_is_rolled_back_by_itself(
    world: World, first_release: FirstRelease, tmp_path: Path
) -> None:
    before = world.served("resnet-digits")
    bundle = {**world.read(first_release.release_id, "bundle"), "engine": "crashing"}
    with users(world, "resnet-digits", "resnet-digits-1", tmp_path / "traffic.json"):
        done = _promote(world, tmp_path, "crashing-server", bundle)
    assert done.returncode == 1
    assert "flightpath: release crashing-server is not live, got rolled_back: " in done.stderr
    _check_nobody_noticed(world, tmp_path, before)


def _check_nobody_noticed(world: World, tmp_path: Path, before: list[int]) -> None:
    assert world.served("resnet-digits") == before
    seen = json.loads((tmp_path / "traffic.json").read_bytes())
    assert {name: region["failures"] for name, region in seen.items()} == {name: {} for name in seen}
    assert all(region["sent"] > 50 for region in seen.values())
