"""The evaluation stage: held-out figures with intervals, and the golden set made from the FP32 model."""

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.bundle import hash_file
from serving.errors import PermanentError
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, Evaluation, Figure
from tasks.data.addresses import fetch_folder
from tasks.data.dataset import fetch_dataset, read_split
from tasks.progress import announce
from tasks.recipes.family import Golden, HeldOut, Judgement
from tasks.recipes.recipe import Recipe

if TYPE_CHECKING:
    pass

EVALUATION: Final = "evaluation.json"
SCHEMA_VERSION: Final = 1


def evaluate(recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, store: ArtifactStore) -> Evaluation:
    """Judge a checkpoint on the test split and keep the golden set, by content, in the store."""
    from tasks.training.determinism import reproducible_torch
    from tasks.training.inference import predict
    from tasks.training.state import load_model

    started = time.monotonic()
    family = recipe.family()
    with tempfile.TemporaryDirectory() as scratch, reproducible_torch():
        folder = fetch_dataset(dataset.uri, Path(scratch) / "dataset", sha256=dataset.sha256)
        test = read_split(folder, "test")
        model = load_model(family, checkpoint, Path(scratch) / "checkpoint")
        answers = predict(family, model, test)
        judgement = family.judge(answers, test)
        baselines = family.baselines(read_split(folder, "train"), test)
        golden = family.golden(
            HeldOut(model=model, test=test, answers=answers, samples=recipe.golden_samples, folder=folder)
        )
        record = _record(dataset, judgement, baselines, golden)
        golden_uri, sha256 = _keep(Path(scratch) / "kept", golden, record, store)
    announce("evaluation", "held-out test set judged", accuracy=judgement.accuracy, samples=len(answers))
    return Evaluation(
        golden_uri=golden_uri,
        golden_sha256=sha256,
        accuracy=judgement.accuracy,
        golden_accuracy=golden.accuracy,
        seconds=time.monotonic() - started,
        figures=[
            Figure(name="accuracy", value=judgement.accuracy, unit="share"),
            Figure(name="accuracy_low", value=judgement.interval[0], unit="share"),
            Figure(name="accuracy_high", value=judgement.interval[1], unit="share"),
            Figure(name="test_samples", value=float(len(answers)), unit="samples"),
            *judgement.figures,
            *baselines,
            *golden.figures,
        ],
    )


def _record(dataset: Dataset, judgement: Judgement, baselines: list[Figure], golden: Golden) -> dict[str, Any]:
    """`evaluation.json`: everything a page or the bundle needs, and nothing that differs from run to run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "classes": dataset.classes,
        "accuracy": judgement.accuracy,
        "figures": {figure.name: figure.value for figure in (*judgement.figures, *baselines, *golden.figures)},
        "golden": {
            "file": golden.file,
            "sha256": hashlib.sha256(golden.content).hexdigest(),
            "samples": golden.samples,
        },
        **judgement.details,
    }


def _keep(folder: Path, golden: Golden, record: dict[str, Any], store: ArtifactStore) -> tuple[str, str]:
    """Put golden set and record into the store; returns the golden file's address and its SHA-256."""
    text = canonical_json(record)
    write_atomically(folder / golden.file, golden.content)
    write_atomically(folder / EVALUATION, text)
    uri = store.put_folder(folder, f"evaluations/{hashlib.sha256(text).hexdigest()}", marker=EVALUATION)
    return f"{uri}/{golden.file}", record["golden"]["sha256"]


def read_evaluation(evaluation: Evaluation, target: Path) -> dict[str, Any]:
    """Fetch an evaluation's folder to `target`; returns its record (`classes`, `golden`, `figures`, …).

    Raises:
        PermanentError: the golden set differs from what the evaluation names.
    """
    folder, _, name = evaluation.golden_uri.rpartition("/")
    fetch_folder(folder, target, marker=EVALUATION)
    if (found := hash_file(target / name)) != evaluation.golden_sha256:
        raise PermanentError("golden set has a wrong SHA-256", got=found, expected=evaluation.golden_sha256)
    record: dict[str, Any] = json.loads((target / EVALUATION).read_bytes())
    return record
