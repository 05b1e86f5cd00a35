"""Real training under Ray with two workers, one of which is killed."""

import contextlib
import json
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
from tests.fakes.launching import ROOT, described, isolated

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


def _train_under_ray(store: ArtifactStore, dataset: Dataset, run: Path, log: Path) -> Checkpoint:
    command = isolated([sys.executable, "-c", _TRAIN, store.uri, str(run), described(dataset)])
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT) as driver,
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
def test_two_ray_workers_train_a_model_worth_serving_though_one_is_killed(tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
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
