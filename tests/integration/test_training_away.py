"""Workers that share no disk: the run lies in S3 (moto), and whoever is killed or sent away is gone on from there."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from serving.store import ArtifactStore
from serving.store_files import StoreFiles
from tasks.artifacts import Dataset
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.launch import torchrun
from tasks.training.launch.torchrun import EXIT_RETRY
from tasks.training.stage import train
from tests.fakes.moto import MotoServer
from tests.fakes.short_recipe import REFERENCE, STEPS

_ROOT = Path(__file__).resolve().parents[2]
_RUN = "s3://runs/flightpath/one"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with MotoServer(tmp_path_factory.mktemp("moto") / "moto.log") as aws:
        aws.client("s3").create_bucket(Bucket="runs")
        yield aws


@pytest.fixture
def run(aws: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreFiles]:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    files = StoreFiles.open(_RUN)
    yield files
    files.remove_folder("")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(get_recipe(REFERENCE), 1, ArtifactStore((tmp_path_factory.mktemp("data") / "store").as_uri()))


@contextlib.contextmanager
def begun(
    run: StoreFiles, dataset: Dataset, scratch: Path, *, workers: int, aws: MotoServer
) -> Iterator[subprocess.Popen[bytes]]:
    """torchrun and its workers, once they have saved; their temporary files lie in a place of their own. Killed at the
    end."""
    scratch.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(workers)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
    ]
    environment = {**os.environ, **aws.environment, "PYTHONPATH": str(_ROOT), "TMPDIR": str(scratch)}
    module = ["-m", "tasks.training.launch.torchrun", "--recipe", REFERENCE, "--dataset", dataset.uri]
    command = [*(command if workers > 1 else [sys.executable]), *module, "--output", _RUN, "--seed", "1"]
    with (scratch / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**environment, "FLIGHTPATH_CHECKPOINT_INTERVAL_STEPS": "10"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        wait_for_checkpoint(run, process, scratch)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for_checkpoint(run: StoreFiles, process: subprocess.Popen[bytes], scratch: Path) -> None:
    deadline = time.monotonic() + 150
    while not any(name.endswith("/manifest.json") for name in run.list()):
        assert process.poll() is None, (scratch / "stderr").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_two_workers_that_share_no_disk_die_and_go_on_in_another_place(
    run: StoreFiles, dataset: Dataset, aws: MotoServer, tmp_path: Path
) -> None:
    with begun(run, dataset, tmp_path / "here", workers=2, aws=aws):
        pass  # until its first checkpoint, and no longer
    store, recipe = ArtifactStore((tmp_path / "store").as_uri()), get_recipe(REFERENCE)
    away = train(recipe, dataset, seed=1, workers=2, store=store, run=_RUN, launch=torchrun.launch)
    here = train(recipe, dataset, seed=1, workers=2, store=store, run=str(tmp_path / "run"), launch=torchrun.launch)
    assert (away.step, away.sha256) == (STEPS, here.sha256)
    attempts = {name.rpartition("-a")[2].partition("/")[0] for name in run.list() if name.startswith("step-")}
    assert attempts <= {"1", "2"}
    resumed = [json.loads(line)["resumed_from_step"] for line in run.read("progress.jsonl").splitlines()]
    assert (resumed[0], resumed[-1] is not None and resumed[-1] >= 10) == (None, True)


@pytest.mark.timeout(400)
def test_a_worker_that_is_asked_to_stop_saves_first(
    run: StoreFiles, dataset: Dataset, aws: MotoServer, tmp_path: Path
) -> None:
    with begun(run, dataset, tmp_path / "here", workers=1, aws=aws) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == EXIT_RETRY
    said = (tmp_path / "here" / "stderr").read_text().splitlines()[-1]
    assert said.startswith("RetryableError: training was asked to stop, got SIGTERM, saved step ")
    step = said.rpartition(" ")[2]
    assert run.has(f"step-{step}-a1/manifest.json")
    assert not [path for path in (tmp_path / "here").iterdir() if path.name.startswith("flightpath-run-")]
