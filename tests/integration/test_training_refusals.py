"""What no restart can mend is tried once, whoever launches."""

import re
from pathlib import Path

import pytest

from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tests.fakes import poisoned_recipe
from tests.fakes.launching import TRAIN_BY_ELASTIC, described, run_script

TRAIN_BY_RAY = """
import json, sys
from pathlib import Path
from serving.errors import PermanentError
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.training.stage import train
from tasks.training.launch.ray import launch
from tasks.recipes.finding import get_recipe

store, run, dataset, recipe, overrides = sys.argv[1:]
try:
    train(
        get_recipe(recipe, overrides), Dataset(**json.loads(dataset)), seed=1, workers=2,
        store=ArtifactStore(store), run=run, launch=launch,
    )
except PermanentError as refused:
    sys.exit(str(refused))
"""


@pytest.mark.timeout(600)
def test_what_no_restart_can_mend_is_tried_once_and_told_in_words(tmp_path: Path) -> None:
    """One worker alone meets it: the other must not wait for it for ever."""
    store = ArtifactStore((tmp_path / "store").as_uri())
    overrides = '{"data.broken": "label"}'
    dataset = prepare(get_recipe(poisoned_recipe.REFERENCE, overrides), 1, store)
    shown = [store.uri, described(dataset), poisoned_recipe.REFERENCE, overrides]
    said = r"family's loss failed in step \d+ of rank \d, got IndexError: Target 99"
    elastic = run_script([TRAIN_BY_ELASTIC, *shown], tmp_path)
    run = tmp_path / "runs" / "rel"
    assert elastic.returncode == 1
    assert re.search(rf"^flightpath: {said}", elastic.stderr, re.M)
    ray = run_script([TRAIN_BY_RAY, store.uri, str(tmp_path / "ray"), *shown[1:]], tmp_path)
    assert ray.returncode == 1
    assert re.match(said, ray.stderr.splitlines()[-1])
    # Neither trained again from the checkpoint before: whoever was started again looked, and ended.
    for folder in (run, tmp_path / "ray"):
        assert not [path for path in folder.glob("step-*") if not path.name.endswith("-a1")]
