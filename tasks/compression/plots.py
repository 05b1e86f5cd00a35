"""What compression did: the calibrated ranges, and FP32 beside INT8 in accuracy and latency."""

import html
from typing import Any, Final

from tasks.artifacts import CompressedModel
from tasks.compression import report
from tasks.compression.calibration import CALIBRATION
from tasks.data.addresses import read_record
from tasks.evaluation.drawing import drawing

_SHOWN_TENSORS: Final = 40
"""More rows than this are not readable; the widest ranges are shown."""


def calibration_summary(compressed: CompressedModel) -> str:
    """HTML: the variants in a table, then the range of every calibrated tensor."""
    summary = read_record(compressed.uri, CALIBRATION)
    return f"{variant_table(compressed)}{draw_ranges(summary)}"


def variant_table(compressed: CompressedModel) -> str:
    """HTML table of accuracy, size and latency per variant, and the choice in words."""
    figures = {figure.name: figure.value for figure in compressed.figures}
    columns = ("accuracy", "size", "p50 batch 1", "p95 batch 1", "p50 batch 32", "p95 batch 32")
    rows = "".join(
        f"<tr><td>{html.escape(variant)}</td>"
        + "".join(f"<td>{_cell(column, figures.get(f'{variant} {column}'))}</td>" for column in columns)
        + "</tr>"
        for variant in report.FILES
    )
    head = "".join(f"<th>{name}</th>" for name in ("variant", *columns))
    relation = "at or above" if compressed.chosen_variant == report.INT8_CPU else "below"
    return (
        f"<p>Served: <b>{html.escape(compressed.chosen_variant)}</b>. INT8 has "
        f"{100 * figures['int8_accuracy_ratio']:.2f} % of the FP32 accuracy, {relation} the bound of "
        f"{100 * figures['int8_accuracy_bound']:.1f} %. The TensorRT graph is judged in ONNX Runtime with graph "
        f"optimisations off and not timed here.</p><table><tr>{head}</tr>{rows}</table>"
    )


def draw_ranges(summary: dict[str, Any]) -> str:
    """SVG with one bar per tensor from its lowest to its highest calibrated value."""
    ranges: dict[str, list[float]] = summary["ranges"]
    widest = set(sorted(ranges, key=lambda name: ranges[name][0] - ranges[name][1])[:_SHOWN_TENSORS])
    shown = [name for name in ranges if name in widest]
    with drawing(width=11, height=1.6 + 0.24 * len(shown)) as drawn:
        (axes,) = drawn.axes
        rows = range(len(shown))
        axes.barh(
            rows,
            [ranges[name][1] - ranges[name][0] for name in shown],
            left=[ranges[name][0] for name in shown],
            color="#54aeff",
            height=0.7,
        )
        axes.axvline(0, color="#57606a", linewidth=0.8)
        axes.set_yticks(rows, shown, fontsize=9)
        axes.invert_yaxis()
        axes.set(
            xlabel="value of the activation",
            title=f"Ranges seen in {summary['samples']} calibration samples ({len(shown)} of {len(ranges)} tensors)",
        )
    return drawn.svg


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "not timed"
    if column == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value / 1024:.0f} KiB" if column == "size" else f"{value:.3f} ms"
