"""Real training with two workers under each launcher: Ray, torchrun, and PyTorch elastic through flytekit.

Ray and elastic's rendezvous listen on every interface, so they run in a network namespace of their own where the
machine lets an ordinary process make one.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset
from tasks.data.stage import prepare
from tasks.evaluation.stage import evaluate
from tasks.recipes.finding import get_recipe
from tasks.training.launch import torchrun
from tasks.training.stage import train
from tests.fakes import poisoned_recipe
from tests.fakes.tiny_recipe import REFERENCE, STEPS

_ROOT = Path(__file__).resolve().parents[2]

_TRAIN = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.training.stage import train
from tasks.training.launch.ray import launch
from tasks.recipes.finding import get_recipe

store, run, dataset = sys.argv[1:]
checkpoint = train(
    get_recipe("resnet-digits"), Dataset(**json.loads(dataset)), seed=1, workers=2,
    store=ArtifactStore(store), run=run, launch=launch,
)
print(json.dumps(asdict(checkpoint)))
"""

_TRAIN_POISONED = """
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

_TRAIN_BY_ELASTIC = """
import json, sys
from dataclasses import asdict
from tasks.artifacts import Dataset, ReleasePlan
from tasks.training.elastic_task import train_elastic

store, dataset, recipe, overrides = sys.argv[1:]
plan = ReleasePlan(
    release_id="rel", recipe=recipe, seed=1, store_uri=store, regions=["us-east"], code_version="c", data_hash="d",
    overrides=overrides,
)
print(json.dumps(asdict(train_elastic(plan=plan, dataset=Dataset(**json.loads(dataset))))))
"""


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


def _isolated(command: list[str]) -> list[str]:
    """The command in a network namespace with nothing but loopback, or the bare command."""
    if shutil.which("unshare") and shutil.which("ip"):
        inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        for flags in (["-n"], ["-rn"]):
            if subprocess.run(["unshare", *flags, "true"], capture_output=True, check=False).returncode == 0:
                return ["unshare", *flags, *inside]
    return command


def _described(dataset: Dataset) -> str:
    return json.dumps({"uri": dataset.uri, "sha256": dataset.sha256, "samples": dataset.samples})


def _run(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """A script with arguments, whose state root is `home`."""
    environment = {**os.environ, "FLIGHTPATH_HOME": str(home), "PYTHONPATH": str(_ROOT)}
    return subprocess.run(
        _isolated([sys.executable, "-c", *arguments]),
        cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def _train_under_ray(store: ArtifactStore, dataset: Dataset, run: Path, log: Path) -> Checkpoint:
    command = _isolated([sys.executable, "-c", _TRAIN, store.uri, str(run), _described(dataset)])
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=_ROOT) as driver,
    ):
        try:
            _kill_a_worker_after_its_first_checkpoint(driver, run)
            output, _ = driver.communicate(timeout=240)
        finally:
            _end(driver)
    assert driver.returncode == 0, log.read_text()[-4000:]
    return Checkpoint(**json.loads(output.decode().splitlines()[-1]))


def _kill_a_worker_after_its_first_checkpoint(driver: subprocess.Popen[bytes], run: Path) -> None:
    """Found before that: looking through all processes takes long on a busy machine, and training goes on meanwhile."""
    deadline, workers = time.monotonic() + 200, []
    while not (run / "step-100-a1" / "manifest.json").exists():
        if driver.poll() is not None or time.monotonic() > deadline:
            return
        if len(workers) < 2:
            family = psutil.Process(driver.pid).children(recursive=True)
            workers = [child for child in family if _is_train_worker(child)]
        time.sleep(0.05)
    workers[-1].kill()


def _is_train_worker(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _end(driver: subprocess.Popen[bytes]) -> None:
    """Leave no daemon behind if the driver could not stop Ray itself."""
    if driver.poll() is None:
        for process in [*psutil.Process(driver.pid).children(recursive=True), driver]:
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.mark.timeout(600)
def test_two_ray_workers_train_a_model_worth_serving_though_one_is_killed(store: ArtifactStore, tmp_path: Path) -> None:
    recipe = get_recipe("resnet-digits")
    dataset = prepare(recipe, 1, store)
    checkpoint = _train_under_ray(store, dataset, tmp_path / "ray", tmp_path / "ray.log")
    evaluation = evaluate(recipe, dataset, checkpoint, store)
    assert evaluation.accuracy >= 0.97
    # One worker was killed on the way: the second attempt went on from step 100.
    assert checkpoint.step == 219
    assert [folder.name for folder in (tmp_path / "ray").glob("step-219-*")] == ["step-219-a2"]
    # The same workers under another launcher: Ray has no part in the bits.
    again = train(
        recipe, dataset, seed=1, workers=2, store=store, run=str(tmp_path / "torchrun"), launch=torchrun.launch
    )
    assert again.sha256 == checkpoint.sha256


@pytest.mark.timeout(600)
def test_torchrun_and_flytekits_elastic_train_a_users_recipe_to_the_same_bits(
    store: ArtifactStore, tmp_path: Path
) -> None:
    recipe = get_recipe(REFERENCE)
    dataset = prepare(recipe, 1, store)
    checkpoint = train(
        recipe, dataset, seed=1, workers=2, store=store, run=str(tmp_path / "run"), launch=torchrun.launch
    )
    assert checkpoint.step == STEPS
    assert (tmp_path / "run" / f"step-{STEPS}-a1" / "rank-1.json").is_file()
    done = _run([_TRAIN_BY_ELASTIC, store.uri, _described(dataset), REFERENCE, ""], tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1])["sha256"] == checkpoint.sha256
    assert (tmp_path / "decks" / "rel" / "training.html").is_file()
    # What the release has done is not done again, by any worker.
    again = _run([_TRAIN_BY_ELASTIC, store.uri, _described(dataset), REFERENCE, ""], tmp_path)
    assert "already done in this release" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_what_no_restart_can_mend_is_tried_once_and_told_in_words(store: ArtifactStore, tmp_path: Path) -> None:
    """One worker alone meets it: the other must not wait for it for ever."""
    overrides = '{"data.broken": "label"}'
    dataset = prepare(get_recipe(poisoned_recipe.REFERENCE, overrides), 1, store)
    shown = [store.uri, _described(dataset), poisoned_recipe.REFERENCE, overrides]
    said = r"family's loss failed in step \d+ of rank \d, got IndexError: Target 99"
    elastic = _run([_TRAIN_BY_ELASTIC, *shown], tmp_path)
    run = tmp_path / "runs" / "rel"
    assert elastic.returncode == 1
    assert re.search(rf"^flightpath: {said}", elastic.stderr, re.M)
    ray = _run([_TRAIN_POISONED, store.uri, str(tmp_path / "ray"), *shown[1:]], tmp_path)
    assert ray.returncode == 1
    assert re.match(said, ray.stderr.splitlines()[-1])
    # Neither trained again from the checkpoint before: whoever was started again looked, and ended.
    for folder in (run, tmp_path / "ray"):
        assert not [path for path in folder.glob("step-*") if not path.name.endswith("-a1")]
