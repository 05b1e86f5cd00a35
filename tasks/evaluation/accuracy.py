"""The evaluation stage: held-out figures with intervals, and the golden set made from the FP32 model."""

import hashlib
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from serving.bundle import hash_file
from serving.errors import InvalidInput, PermanentError
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, Evaluation, Figure
from tasks.data.addresses import fetch_folder
from tasks.data.module import Split, fetch_dataset, read_split
from tasks.progress import announce
from tasks.training.family import Family, Judgement
from tasks.training.recipes import Recipe

if TYPE_CHECKING:
    import torch

GOLDEN: Final = "golden.safetensors"
EVALUATION: Final = "evaluation.json"
SCHEMA_VERSION: Final = 1
_Z_95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
_BATCH: Final = 256


def evaluate(recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, store: ArtifactStore) -> Evaluation:
    """Judge a checkpoint on the test split and keep the golden set, by content, in the store."""
    from tasks.training.state import load_model

    started = time.monotonic()
    family = recipe.family()
    with tempfile.TemporaryDirectory() as scratch:
        folder = fetch_dataset(dataset.uri, Path(scratch) / "dataset", sha256=dataset.sha256)
        test = read_split(folder, "test")
        model = load_model(family, checkpoint, Path(scratch) / "checkpoint")
        outputs = predict(family, model, test)
        judgement = family.judge(outputs, test)
        few = {name: array[: recipe.golden_samples] for name, array in test.items()}
        reference = outputs[: recipe.golden_samples]
        golden_accuracy = family.judge(reference, few).accuracy
        record = {"classes": dataset.classes, "accuracy": judgement.accuracy, **judgement.details}
        golden_uri, sha256 = _keep(Path(scratch) / "kept", family.golden(few, reference), record, store)
    announce("evaluation", "held-out test set judged", accuracy=judgement.accuracy, samples=len(outputs))
    return Evaluation(
        golden_uri=golden_uri,
        golden_sha256=sha256,
        accuracy=judgement.accuracy,
        golden_accuracy=golden_accuracy,
        seconds=time.monotonic() - started,
        figures=[
            Figure(name="accuracy", value=judgement.accuracy, unit="share"),
            Figure(name="accuracy_low", value=judgement.interval[0], unit="share"),
            Figure(name="accuracy_high", value=judgement.interval[1], unit="share"),
            Figure(name="test_samples", value=float(len(outputs)), unit="samples"),
            *judgement.figures,
        ],
    )


def predict(
    family: Family, model: "torch.nn.Module", split: Split, *, device: "torch.device | None" = None
) -> NDArray[np.float32]:
    """The model's first output for every sample of `split`, in evaluation mode on `device` (the CPU)."""
    import torch

    tensors = [torch.from_numpy(split[spec.name]) for spec in family.signature().inputs]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            model(*(tensor[start : start + _BATCH].to(device) for tensor in tensors)).float().cpu().numpy()
            for start in range(0, len(tensors[0]), _BATCH)
        ]
    model.train(was_training)
    return np.concatenate(parts)


def judge_classification(logits: NDArray[np.float32], labels: NDArray[np.int64], *, classes: int) -> Judgement:
    """Top-1 accuracy with its Wilson interval, recall per class and the confusion matrix.

    Args:
        logits: (samples, classes).
        labels: (samples,) true classes.
    """
    if logits.shape != (len(labels), classes):
        raise InvalidInput("logits have a wrong shape", got=logits.shape, expected=(len(labels), classes))
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    correct = int(np.trace(confusion))
    present = confusion.sum(axis=1)
    recall = [float(confusion[k, k] / present[k]) if present[k] else None for k in range(classes)]
    worst = min((value for value in recall if value is not None), default=0.0)
    return Judgement(
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        figures=[Figure(name="worst_class_recall", value=worst, unit="share")],
        details={"confusion": confusion.tolist(), "recall": recall},
    )


def wilson_interval(successes: int, trials: int, *, z: float = _Z_95) -> tuple[float, float]:
    """Score interval of a share (Wilson, 1927): sound near 0 and 1, where the normal one leaves [0, 1]."""
    if trials < 1 or not 0 <= successes <= trials:
        raise InvalidInput("no such share", got=f"{successes} of {trials}", expected="0 <= successes <= trials, >= 1")
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def _keep(folder: Path, golden: Split, record: dict[str, Any], store: ArtifactStore) -> tuple[str, str]:
    """Put golden set and record into the store; returns the golden file's address and its SHA-256."""
    content = save({name: np.ascontiguousarray(array) for name, array in golden.items()})
    golden_sha256 = hashlib.sha256(content).hexdigest()
    text = canonical_json({"schema_version": SCHEMA_VERSION, "golden_sha256": golden_sha256, **record})
    write_atomically(folder / GOLDEN, content)
    write_atomically(folder / EVALUATION, text)
    uri = store.put_folder(folder, f"evaluations/{hashlib.sha256(text).hexdigest()}", marker=EVALUATION)
    return f"{uri}/{GOLDEN}", golden_sha256


def read_evaluation(evaluation: Evaluation, target: Path) -> dict[str, Any]:
    """Fetch an evaluation's folder to `target`; returns its record (`classes`, `confusion`, …).

    Raises:
        PermanentError: the golden set differs from what the evaluation names.
    """
    fetch_folder(evaluation.golden_uri.rpartition("/")[0], target, marker=EVALUATION)
    if (found := hash_file(target / GOLDEN)) != evaluation.golden_sha256:
        raise PermanentError("golden set has a wrong SHA-256", got=found, expected=evaluation.golden_sha256)
    record: dict[str, Any] = json.loads((target / EVALUATION).read_bytes())
    return record
