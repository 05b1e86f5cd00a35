"""What evaluation found, drawn from its record: a confusion matrix, or perplexity beside n-gram baselines."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tasks.artifacts import Evaluation
from tasks.data.addresses import read_record
from tasks.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {"unigram": "#8c959f", "bigram": "#54aeff", "this model": "#116329"}


def evaluation_page(evaluation: Evaluation) -> str:
    """HTML of the held-out figures: accuracy in words, then whatever the record lets us draw."""
    record = read_record(evaluation.golden_uri.rpartition("/")[0], "evaluation.json")
    figures = {figure.name: figure.value for figure in evaluation.figures}
    interval = f"{100 * figures['accuracy_low']:.1f} to {100 * figures['accuracy_high']:.1f} %"
    what = "Next-token accuracy" if "perplexity" in figures else "Accuracy"
    return (
        f"<p>{what} {100 * evaluation.accuracy:.2f} % on {figures['test_samples']:.0f} held-out samples "
        f"(95 % interval {interval}).{_baseline(figures)}</p>{draw_confusion(record)}{draw_language(figures)}"
    )


def _baseline(figures: Mapping[str, float]) -> str:
    if "majority_class_accuracy" not in figures:
        return ""
    return f" Always answering the most frequent class: {100 * figures['majority_class_accuracy']:.1f} %."


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


def draw_language(figures: Mapping[str, float]) -> str:
    """SVG of perplexity and bits per byte beside the unigram's and the bigram's; nothing for other families."""
    if "bits_per_byte" not in figures:
        return ""
    with drawing(width=11, height=3, columns=2) as drawn:
        for axes, name, title in zip(
            drawn.axes,
            ("perplexity", "bits_per_byte"),
            ("Perplexity (per token)", "Bits per byte of text"),
            strict=True,
        ):
            _draw_bars(axes, figures, name)
            axes.set(title=title, xlabel="lower is better; line: 95 % interval over files")
    return drawn.svg


def _draw_bars(axes: "Axes", figures: Mapping[str, float], name: str) -> None:
    values = {
        "unigram": figures[f"unigram_{name}"],
        "bigram": figures[f"bigram_{name}"],
        "this model": figures[name],
    }
    rows = range(len(values))
    axes.barh(rows, list(values.values()), color=[_COLOURS[label] for label in values], height=0.65)
    axes.plot([figures[f"{name}_low"], figures[f"{name}_high"]], [2, 2], color="#1b1f24", linewidth=2)
    for row, (label, value) in enumerate(values.items()):
        # Beside the interval where there is one, so that its line does not cross the figure.
        end = max(value, figures[f"{name}_high"]) if label == "this model" else value
        axes.text(end, row, f"  {value:.3g}", va="center")
    axes.set_yticks(rows, list(values))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(values.values()))
