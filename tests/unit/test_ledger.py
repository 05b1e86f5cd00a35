"""The same release id resumes: what is done is not done again, unless its content is gone."""

import json
import shutil
from pathlib import Path

import pytest

from serving.errors import Conflict, InvalidInput
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Figure, ReleasePlan
from tasks.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(ArtifactStore((tmp_path / "store").as_uri()), "rel-1")


def _plan(ledger: Ledger, **changed: object) -> ReleasePlan:
    values = {
        "release_id": "rel-1",
        "recipe": "resnet-digits",
        "seed": 1,
        "store_uri": ledger.store.uri,
        "regions": ["us-east"],
        "code_version": "c1",
        "data_hash": "d1",
    }
    return ReleasePlan(**{**values, **changed})  # type: ignore[arg-type]  # one of them is changed


def _checkpoint(tmp_path: Path, step: int) -> Checkpoint:
    folder = tmp_path / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    figure = Figure(name="loss", value=0.5, unit="nats")
    return Checkpoint(uri=folder.as_uri(), sha256="0", step=step, seconds=1.0, figures=[figure])


def test_a_finished_stage_is_not_run_again(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.once("training", Checkpoint, lambda: _checkpoint(tmp_path, 1))
    again = ledger.once("training", Checkpoint, lambda: _checkpoint(tmp_path, 2))
    assert again == first
    assert again.figures[0].name == "loss"


def test_a_stage_whose_content_is_gone_runs_again(ledger: Ledger, tmp_path: Path) -> None:
    ledger.once("training", Checkpoint, lambda: _checkpoint(tmp_path, 1))
    shutil.rmtree(tmp_path / "checkpoint-1")
    assert ledger.once("training", Checkpoint, lambda: _checkpoint(tmp_path, 2)).step == 2


def test_a_stage_that_failed_leaves_no_record(ledger: Ledger) -> None:
    def fail() -> Checkpoint:
        raise InvalidInput("no")

    with pytest.raises(InvalidInput):
        ledger.once("training", Checkpoint, fail)
    assert ledger.raw("training") is None


@pytest.mark.parametrize("changed", [{"recipe": "other"}, {"seed": 2}, {"data_hash": "d2"}])
def test_a_release_id_stands_for_one_content(ledger: Ledger, changed: dict[str, object]) -> None:
    ledger.claim(_plan(ledger))
    with pytest.raises(Conflict, match="already stands for another"):
        ledger.claim(_plan(ledger, **changed))


def test_a_resumed_release_keeps_the_code_version_it_began_with(ledger: Ledger) -> None:
    ledger.claim(_plan(ledger))
    assert ledger.claim(_plan(ledger, code_version="c2", regions=["eu-west"])).code_version == "c1"


def test_a_record_is_the_artifact_as_plain_json(ledger: Ledger, tmp_path: Path) -> None:
    ledger.once("training", Checkpoint, lambda: _checkpoint(tmp_path, 1))
    raw = json.loads((tmp_path / "store" / "releases" / "rel-1" / "training.json").read_bytes())
    assert raw["step"] == 1


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", "-a"])
def test_a_release_id_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="release id is malformed"):
        Ledger(ArtifactStore(tmp_path.as_uri()), name)
