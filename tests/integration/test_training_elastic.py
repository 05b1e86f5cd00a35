"""Training by PyTorch elastic as flytekit starts it: the bits are torchrun's."""

import json
from pathlib import Path

import pytest

from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.launch import torchrun
from tasks.training.stage import train
from tests.fakes.launching import TRAIN_BY_ELASTIC, described, run_script
from tests.fakes.tiny_recipe import REFERENCE, STEPS


@pytest.mark.timeout(600)
def test_torchrun_and_flytekits_elastic_train_a_users_recipe_to_the_same_bits(tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    recipe = get_recipe(REFERENCE)
    dataset = prepare(recipe, 1, store)
    checkpoint = train(
        recipe, dataset, seed=1, workers=2, store=store, run=str(tmp_path / "run"), launch=torchrun.launch
    )
    assert checkpoint.step == STEPS
    assert (tmp_path / "run" / f"step-{STEPS}-a1" / "rank-1.json").is_file()
    done = run_script([TRAIN_BY_ELASTIC, store.uri, described(dataset), REFERENCE, ""], tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["sha256"] == checkpoint.sha256
    assert (tmp_path / "decks" / "rel" / "training.html").is_file()
    # What the release has done is not done again, by any worker.
    again = run_script([TRAIN_BY_ELASTIC, store.uri, described(dataset), REFERENCE, ""], tmp_path)
    assert "already done in this release" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == json.loads(done.stdout.splitlines()[-1])
