"""Judging classifiers: shares with their intervals, recall per class, the golden set of labelled inputs."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from serving.errors import InvalidInput
from tasks.artifacts import Figure
from tasks.families.golden_inputs import golden_arrays
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement

GOLDEN: Final = "golden.safetensors"
_Z_95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


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


def majority_class(train_labels: NDArray[np.int64], labels: NDArray[np.int64]) -> list[Figure]:
    """Accuracy of always answering the class that is most frequent in training."""
    guess = int(np.bincount(train_labels).argmax())
    return [Figure(name="majority_class_accuracy", value=float((labels == guess).mean()), unit="share")]


def classification_golden(held_out: HeldOut, *, inputs: Split, labels: NDArray[np.int64], classes: int) -> Golden:
    """`golden.safetensors`: drawn samples' inputs and `labels`, and the model's logits as `reference`.

    Args:
        inputs: by the names of the model's inputs, (samples, ...).
    """
    arrays = golden_arrays(held_out, inputs, {"labels": labels})
    return Golden(
        file=GOLDEN,
        content=save(arrays),
        samples=len(arrays["labels"]),
        accuracy=judge_classification(arrays["reference"], arrays["labels"], classes=classes).accuracy,
    )
