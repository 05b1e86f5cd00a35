"""The confusion matrix of the held-out test set, with recall per class."""

from typing import Any

import numpy as np

from tasks.artifacts import Evaluation
from tasks.data.addresses import read_record
from tasks.evaluation.drawing import drawing


def confusion_matrix(evaluation: Evaluation) -> str:
    """HTML of the evaluation's confusion matrix."""
    record = read_record(evaluation.golden_uri.rpartition("/")[0], "evaluation.json")
    figures = {figure.name: figure.value for figure in evaluation.figures}
    interval = f"{100 * figures['accuracy_low']:.1f} to {100 * figures['accuracy_high']:.1f} %"
    return (
        f"<p>Accuracy {100 * evaluation.accuracy:.2f} % on {figures['test_samples']:.0f} held-out samples "
        f"(95 % interval {interval}).</p>{draw_confusion(record)}"
    )


def draw_confusion(record: dict[str, Any]) -> str:
    """SVG of `confusion` (true class by row, predicted by column) and `recall`; nothing for other families."""
    if "confusion" not in record:
        return ""
    confusion = np.asarray(record["confusion"])
    names = record["classes"] or [str(label) for label in range(len(confusion))]
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    with drawing(width=11, height=5, columns=2) as drawn:
        matrix, points = drawn.axes
        matrix.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(confusion):
            colour = "white" if share[row, column] > 0.5 else "#1b1f24"
            matrix.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=10)
        matrix.set_xticks(range(len(names)), names)
        matrix.set_yticks(range(len(names)), names)
        matrix.set(xlabel="predicted class", ylabel="true class", title="Confusion (samples)")
        recall = [100 * (value or 0.0) for value in record["recall"]]
        # Points, not bars: the axis does not start at zero.
        points.plot(recall, range(len(names)), "o", color="#0969da", clip_on=False)
        points.grid(color="#d8dee4", linewidth=0.6)
        points.set_yticks(range(len(names)), names)
        points.invert_yaxis()
        points.set_xlim(min(90.0, *recall), 100)
        points.set(xlabel="recall (%)", ylabel="true class", title="Recall per class")
    return drawn.svg
