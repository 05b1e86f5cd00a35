"""How often checkpoints are saved and how many are kept, where an order overrides its recipe."""

from pathlib import Path

import pytest

from serving.errors import InvalidInput
from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.checkpointing import MANIFEST
from tasks.training.launch.torchrun import EXIT_INVALID, main, parse_order
from tasks.training.loop import TrainingOrder, train_worker
from tests.fakes.tiny_recipe import REFERENCE, STEPS

PREFIX = "FLIGHTPATH_CHECKPOINT_"
ARGUMENTS = ["--recipe", "resnet-digits", "--dataset", "file:///d/abc", "--output", "/run", "--seed", "1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = ArtifactStore((tmp_path_factory.mktemp("data") / "store").as_uri())
    return prepare(get_recipe(REFERENCE), 1, store).uri


def train(dataset: str, run: Path, **environment: str) -> set[str]:
    """Names of the checkpoints that a whole run leaves."""
    arguments = ["--recipe", REFERENCE, "--dataset", dataset, "--output", str(run), "--seed", "1"]
    assert main(arguments, {f"{PREFIX}{name}": value for name, value in environment.items()}) == 0
    return {path.parent.name for path in run.glob(f"*/{MANIFEST}")}


def test_the_environment_overrides_the_recipe() -> None:
    order = parse_order(
        ARGUMENTS, {f"{PREFIX}INTERVAL_STEPS": "5", f"{PREFIX}INTERVAL_SECONDS": "60", f"{PREFIX}KEEP": "7"}
    )
    assert (order.checkpoint_interval_steps, order.checkpoint_interval_s, order.keep_checkpoints) == (5, 60, 7)


@pytest.mark.parametrize("name", ["INTERVAL_STEPS", "INTERVAL_SECONDS", "KEEP"])
@pytest.mark.parametrize("value", ["0", "-1", "often"])
def test_what_is_no_whole_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="is malformed"):
        parse_order(ARGUMENTS, {f"{PREFIX}{name}": value})
    assert main(ARGUMENTS, {f"{PREFIX}{name}": value}) == EXIT_INVALID


def test_steps_and_number_are_the_orders(dataset: str, tmp_path: Path) -> None:
    assert train(dataset, tmp_path, INTERVAL_STEPS="3", KEEP="3") == {"step-6-a1", "step-9-a1", f"step-{STEPS}-a1"}


def test_an_old_checkpoint_is_reason_enough_for_a_new_one(dataset: str, tmp_path: Path) -> None:
    order = TrainingOrder(
        recipe=REFERENCE,
        dataset_uri=dataset,
        dataset_sha256=dataset.rpartition("/")[2],
        run=str(tmp_path),
        seed=1,
        workers=1,
        checkpoint_interval_s=1e-6,
        keep_checkpoints=100,
    )
    train_worker(order)
    saved = {path.parent.name for path in tmp_path.glob(f"*/{MANIFEST}")}
    assert saved == {f"step-{step}-a1" for step in range(1, STEPS + 1)}


def test_a_run_that_was_already_done_says_so(dataset: str, tmp_path: Path) -> None:
    train(dataset, tmp_path)
    before = (tmp_path / "progress.jsonl").read_text().splitlines()
    train(dataset, tmp_path)
    (last,) = (tmp_path / "progress.jsonl").read_text().splitlines()[len(before) :]
    assert f'"step": {STEPS}, "total_steps": {STEPS}' in last
    assert f'"resumed_from_step": {STEPS}' in last
