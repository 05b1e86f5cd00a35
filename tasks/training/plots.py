"""The training curve: loss and learning rate, and accuracy or perplexity on the validation split."""

from typing import TYPE_CHECKING

from tasks.artifacts import Checkpoint
from tasks.data.addresses import read_record
from tasks.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = list[dict[str, float]]


def training_curve(checkpoint: Checkpoint) -> str:
    """HTML of the checkpoint's curve."""
    return draw_curve(read_record(checkpoint.uri, "curve.json"))


def draw_curve(curve: Curve) -> str:
    """HTML with one SVG; entries hold `step`, `loss`, `learning_rate` and sometimes `validation_<figure>`."""
    with drawing(width=11, height=4, columns=2) as drawn:
        _draw_loss(drawn.axes[0], curve)
        judged = [entry for entry in curve if "validation_accuracy" in entry]
        draw = _draw_perplexity if "validation_perplexity" in judged[-1] else _draw_accuracy
        draw(drawn.axes[1], judged)
    last = curve[-1]
    return f"<p>Loss {last['loss']:.3f} after {last['step']:.0f} steps.</p>{drawn.svg}"


def _draw_loss(axes: "Axes", curve: Curve) -> None:
    steps = [entry["step"] for entry in curve]
    (loss,) = axes.plot(steps, [entry["loss"] for entry in curve], color="#0969da", label="loss")
    axes.set(xlabel="optimizer step", ylabel="loss (nats, mean over the global batch)", title="Training loss")
    axes.set_ylim(bottom=0)
    rate_axes = axes.twinx()
    (rate,) = rate_axes.plot(
        steps, [entry["learning_rate"] for entry in curve], color="#bf8700", linestyle="--", label="learning rate"
    )
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_ylim(bottom=0)
    rate_axes.spines["right"].set_visible(True)
    axes.legend(handles=[loss, rate], loc="upper right", frameon=False)


def _draw_accuracy(axes: "Axes", judged: Curve) -> None:
    accuracy = [100 * entry["validation_accuracy"] for entry in judged]
    axes.plot([entry["step"] for entry in judged], accuracy, color="#1a7f37", marker="o", markersize=4)
    axes.set(xlabel="optimizer step", ylabel="accuracy (%)", title="Accuracy on the validation split")
    axes.set_ylim(max(0.0, min(accuracy, default=0.0) - 5), 101)
    axes.grid(axis="y", color="#d8dee4", linewidth=0.6)
    if accuracy:
        axes.annotate(
            f"{accuracy[-1]:.1f} %",
            (judged[-1]["step"], accuracy[-1]),
            textcoords="offset points",
            xytext=(0, -16),
            ha="right",
        )


def _draw_perplexity(axes: "Axes", judged: Curve) -> None:
    perplexity = [entry["validation_perplexity"] for entry in judged]
    axes.plot([entry["step"] for entry in judged], perplexity, color="#1a7f37", marker="o", markersize=4)
    for name, colour in (("unigram", "#8c959f"), ("bigram", "#0969da")):
        level = judged[-1][f"validation_{name}_perplexity"]
        axes.axhline(level, color=colour, linestyle="--", linewidth=1)
        axes.text(judged[-1]["step"], level, f"{name} {level:.0f}", color=colour, ha="right", va="bottom")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8 * min(perplexity))
    axes.set(xlabel="optimizer step", ylabel="perplexity (log scale)", title="Perplexity on the validation split")
    axes.annotate(
        f"{perplexity[-1]:.1f}",
        (judged[-1]["step"], perplexity[-1]),
        textcoords="offset points",
        xytext=(0, 8),
        ha="right",
    )
