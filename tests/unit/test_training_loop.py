"""The loop: a killed run ends with the very bits of an undisturbed one, and a finished one is not repeated."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from serving.errors import InvalidInput, RetryableError
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import OptimizerConfig
from tasks.training.launch import inprocess
from tasks.training.loop import TrainingOrder, learning_rate, train_worker
from tasks.training.plots import training_curve
from tasks.training.reporting import Progress
from tasks.training.stage import train
from tests.fakes.runs import look
from tests.fakes.tiny_recipe import REFERENCE, STEPS

Train = Callable[..., Checkpoint]


class Killed(Exception):
    """Stands for a worker that dies at a step."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore((tmp_path_factory.mktemp("training") / "store").as_uri())


@pytest.fixture(scope="module")
def dataset(store: ArtifactStore) -> Dataset:
    return prepare(get_recipe(REFERENCE), 1, store)


@pytest.fixture
def train_tiny(store: ArtifactStore, dataset: Dataset) -> Train:
    def run(folder: Path, *, seed: int = 3, launch: Callable[[TrainingOrder], None] = inprocess.launch) -> Checkpoint:
        recipe = get_recipe(REFERENCE)
        return train(recipe, dataset, seed=seed, workers=1, store=store, run=str(folder), launch=launch)

    return run


def fail_at(step: int) -> Callable[[TrainingOrder], None]:
    """A launcher whose worker dies after `step`."""

    def listener(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return lambda order: train_worker(order, listener=listener)


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, train_tiny: Train, step: int) -> None:
    undisturbed = train_tiny(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        train_tiny(tmp_path / "killed", launch=fail_at(step))
    resumed = train_tiny(tmp_path / "killed")
    assert resumed.sha256 == undisturbed.sha256
    assert (tmp_path / "killed" / f"step-{STEPS}-a2").is_dir()


def test_a_torn_newest_checkpoint_costs_steps_but_no_bits(tmp_path: Path, train_tiny: Train) -> None:
    undisturbed = train_tiny(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        train_tiny(tmp_path / "torn", launch=fail_at(9))
    model = tmp_path / "torn" / "step-8-a1" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    assert train_tiny(tmp_path / "torn").sha256 == undisturbed.sha256


def test_another_seed_gives_other_weights(tmp_path: Path, train_tiny: Train) -> None:
    assert train_tiny(tmp_path / "a", seed=1).sha256 != train_tiny(tmp_path / "b", seed=2).sha256


def test_a_finished_run_is_uploaded_and_not_repeated(tmp_path: Path, train_tiny: Train) -> None:
    first = train_tiny(tmp_path / "run")
    launch = Mock()
    again = train_tiny(tmp_path / "run", launch=launch)
    launch.assert_not_called()
    assert (again.uri, again.sha256, again.step) == (first.uri, first.sha256, STEPS)


def test_a_run_folder_of_another_seed_is_refused(tmp_path: Path, train_tiny: Train) -> None:
    train_tiny(tmp_path / "run", seed=1)
    with pytest.raises(InvalidInput, match="another run"):
        train_tiny(tmp_path / "run", seed=2)


def test_an_unfinished_run_of_another_seed_is_refused_by_the_worker(tmp_path: Path, train_tiny: Train) -> None:
    with pytest.raises(Killed):
        train_tiny(tmp_path / "run", seed=1, launch=fail_at(5))
    with pytest.raises(InvalidInput, match="another seed"):
        train_tiny(tmp_path / "run", seed=2)


def test_resume_never_starts_over(tmp_path: Path, train_tiny: Train, dataset: Dataset) -> None:
    train_tiny(tmp_path / "run")
    order = TrainingOrder(
        recipe=REFERENCE,
        dataset_uri=dataset.uri,
        dataset_sha256=dataset.sha256,
        run=str(tmp_path / "run"),
        seed=3,
        workers=1,
        resume="never",
    )
    steps: list[int] = []
    train_worker(order, listener=lambda progress: steps.append(progress.step))
    assert steps == list(range(1, STEPS + 1))
    newest = look(tmp_path / "run").newest
    assert newest is not None
    assert (newest.step, newest.attempt) == (STEPS, 2)


def test_a_launcher_that_trains_nothing_is_no_success(tmp_path: Path, train_tiny: Train) -> None:
    with pytest.raises(RetryableError, match="without its last checkpoint"):
        train_tiny(tmp_path / "run", launch=lambda order: None)


def test_progress_is_announced_and_the_curve_drawn(
    tmp_path: Path, train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIGHTPATH_PROGRESS_FILE", str(tmp_path / "progress"))
    checkpoint = train_tiny(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert lines[0]["message"] == "starting"
    assert lines[-1]["message"] == f"step {STEPS} of {STEPS}"
    assert lines[-1]["figures"]["checkpoint_step"] == STEPS
    assert "step" not in lines[-1]["figures"]
    assert math.isfinite(lines[-1]["figures"]["loss"])
    page = training_curve(checkpoint)
    assert "<svg" in page
    assert "<script" not in page


def test_workers_must_divide_the_global_batch(tmp_path: Path, store: ArtifactStore, dataset: Dataset) -> None:
    with pytest.raises(InvalidInput, match="workers must divide"):
        train(
            get_recipe(REFERENCE),
            dataset,
            seed=1,
            workers=3,
            store=store,
            run=str(tmp_path),
            launch=inprocess.launch,
        )


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    config = OptimizerConfig(peak_learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.0)
