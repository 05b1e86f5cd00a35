"""A run lives at an address: on a disk, at a URI with spaces, or in a store without rename, and dies anywhere."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from serving.errors import FlightpathError, NotFound, RetryableError, Unauthorized
from serving.store import ArtifactStore
from serving.store_files import StoreFiles
from tasks.artifacts import Checkpoint, Dataset
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.branches import Branches
from tasks.training.launch import inprocess
from tasks.training.loop import TrainingOrder, train_worker
from tasks.training.reporting import Progress, read_reports
from tasks.training.stage import train
from tests.fakes.tiny_recipe import REFERENCE, STEPS

ADDRESSES = ["{root}/plain", "file://{root}/a%20run/%C3%A4", "memory://runs{root}"]


class Killed(BaseException):
    """Stands for a process that dies: nothing of it goes on."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore((tmp_path_factory.mktemp("addresses") / "store").as_uri())


@pytest.fixture(scope="module")
def dataset(store: ArtifactStore) -> Dataset:
    return prepare(get_recipe(REFERENCE), 1, store)


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def train_at(store: ArtifactStore, dataset: Dataset) -> Callable[[str], Checkpoint]:
    recipe = get_recipe(REFERENCE)
    return lambda run: train(recipe, dataset, seed=3, workers=1, store=store, run=run, launch=inprocess.launch)


@pytest.fixture(scope="module")
def undisturbed(store: ArtifactStore, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    run = str(tmp_path_factory.mktemp("undisturbed"))
    return train(get_recipe(REFERENCE), dataset, seed=3, workers=1, store=store, run=run, launch=inprocess.launch)


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_same_bits_at_every_address(
    tmp_path: Path, address: str, train_at: Callable[[str], Checkpoint], undisturbed: Checkpoint
) -> None:
    run = address.format(root=tmp_path)
    assert train_at(run).sha256 == undisturbed.sha256
    reports, _ = read_reports(StoreFiles.open(run))
    assert [report.step for report in reports] == list(range(1, STEPS + 1))
    if address.startswith("file://"):
        assert (tmp_path / "a run" / "ä" / f"step-{STEPS}-a1").is_dir()
        assert not list(tmp_path.glob("*%*"))


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4, 5, 6, 7, 11, 13])
def test_a_death_at_any_write_costs_no_bits(
    tmp_path: Path,
    address: str,
    writes: int,
    train_at: Callable[[str], Checkpoint],
    undisturbed: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = address.format(root=tmp_path)
    count = itertools.count()

    def dying(method: Callable[..., None]) -> Callable[..., None]:
        def call(files: StoreFiles, name: str, *arguments: Any, **named: Any) -> None:
            if name != "progress.jsonl" and next(count) >= writes:
                raise Killed(name)
            method(files, name, *arguments, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(StoreFiles, "write", dying(StoreFiles.write))
        patch.setattr(StoreFiles, "put", dying(StoreFiles.put))
        with pytest.raises(Killed):
            train_at(run)
    assert train_at(run).sha256 == undisturbed.sha256


@pytest.mark.parametrize("refusal", [Unauthorized("store refuses us"), RetryableError("store is away")])
def test_progress_that_cannot_be_kept_stops_no_run(
    tmp_path: Path,
    refusal: FlightpathError,
    train_at: Callable[[str], Checkpoint],
    undisturbed: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = StoreFiles.write

    def refusing(files: StoreFiles, name: str, content: bytes) -> None:
        if name == "progress.jsonl":
            raise refusal
        write(files, name, content)

    monkeypatch.setattr(StoreFiles, "write", refusing)
    assert train_at(f"memory://runs{tmp_path}").sha256 == undisturbed.sha256


def test_a_run_where_a_file_lies_is_told_in_words(tmp_path: Path, train_at: Callable[[str], Checkpoint]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FlightpathError, match="file"):
        train_at(str(tmp_path / "file"))


class Branching:
    """One run that is sent back to a step, killed and started again."""

    def __init__(self, run: Path, dataset: Dataset) -> None:
        self.run = run
        self._order = TrainingOrder(
            recipe=REFERENCE,
            dataset_uri=dataset.uri,
            dataset_sha256=dataset.sha256,
            run=str(run),
            seed=3,
            workers=1,
            checkpoint_interval_steps=1,
            keep_checkpoints=100,
        )

    def until(self, step: int | None, resume: str = "auto") -> tuple[int | None, int]:
        """Train and die after `step`; returns the step resumed from and the first step reported."""
        told: list[Progress] = []

        def listener(progress: Progress) -> None:
            told.append(progress)
            if progress.step == step:
                raise Killed

        order = replace(self._order, resume=resume)
        if step is None:
            train_worker(order, listener=listener)
        else:
            with pytest.raises(Killed):
                train_worker(order, listener=listener)
        return told[0].resumed_from_step, told[0].step

    def next_step(self, resume: str = "auto") -> int:
        files = StoreFiles.of_folder(self.run)
        found = Branches(files, self.run).find(resume, total_steps=STEPS)
        return found.newest.step if found.newest else 0


@pytest.fixture
def branching(tmp_path: Path, dataset: Dataset) -> Branching:
    return Branching(tmp_path / "run", dataset)


def test_an_abandoned_branch_is_never_taken(branching: Branching) -> None:
    branching.until(9)
    assert branching.until(4, resume="2") == (2, 3)
    assert branching.next_step() == 4, "and not 9"
    # The same order again, as a launcher gives it to a worker that died: it goes on, and gets to the end.
    assert branching.until(6, resume="2") == (4, 5)
    assert branching.until(None, resume="2") == (6, 7)
    assert branching.next_step() == STEPS
    # Now it is done, and the order means what it says.
    assert branching.until(4, resume="2") == (2, 3)


def test_a_torn_newest_checkpoint_leads_back_along_the_branch(branching: Branching) -> None:
    branching.until(9)
    branching.until(3, resume="2")
    (branching.run / "step-3-a2" / "manifest.json").unlink()
    assert branching.next_step() == 2


def test_never_is_restarted_where_it_was_and_begins_anew_once_it_is_done(branching: Branching) -> None:
    branching.until(9)
    assert branching.until(5, resume="never") == (None, 1)
    assert branching.until(7, resume="never") == (5, 6)
    assert branching.next_step() == 7, "and not 9"
    branching.until(None, resume="never")
    assert branching.until(2, resume="never") == (None, 1)


def test_an_attempt_that_saved_nothing_leaves_the_branch_before_it(branching: Branching) -> None:
    branching.until(5)
    branching.until(1, resume="never")
    (branching.run / "step-1-a2" / "manifest.json").unlink()
    assert branching.next_step() == 5


def test_a_step_that_is_not_there_is_named(branching: Branching) -> None:
    branching.until(3)
    with pytest.raises(NotFound, match="expected one of step 9"):
        branching.next_step("9")


def test_a_run_of_before_attempts_were_recorded_goes_on(branching: Branching) -> None:
    branching.until(5)
    (branching.run / "attempt-1.json").unlink()
    assert branching.until(7) == (5, 6)
    assert branching.next_step() == 7
