"""What compression did: the variants side by side, the calibrated ranges, and the files that servers open."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tasks.artifacts import CompressedModel
from tasks.compression.calibration import CALIBRATION
from tasks.compression.stage import COMPRESSED
from tasks.data.addresses import read_record
from tasks.drawing import drawing

_SHOWN_TENSORS: Final = 40
"""More rows than this are not readable; the widest ranges are shown."""

_COLUMNS: Final[Mapping[str, Callable[[float], str]]] = {
    "accuracy": lambda value: f"{100 * value:.2f} %",
    "perplexity": lambda value: f"{value:.2f}",
    "bits_per_byte": lambda value: f"{value:.3f}",
    "size": lambda value: f"{value / 1024:.0f} KiB",
    "p50 batch 1": lambda value: f"{value:.3f} ms",
    "p95 batch 1": lambda value: f"{value:.3f} ms",
    "p50 batch 32": lambda value: f"{value:.3f} ms",
    "p95 batch 32": lambda value: f"{value:.3f} ms",
}
"""Figures of a variant that are shown, and how; a column that no variant has is left out."""


def compression_page(compressed: CompressedModel) -> str:
    """HTML of whatever the packing made: variants, files, and ranges where something was calibrated."""
    record = read_record(compressed.uri, COMPRESSED)
    pieces = [variant_table(compressed, record["variants"]), file_list(compressed)]
    if CALIBRATION in record["files"]:
        pieces.append(draw_ranges(read_record(compressed.uri, CALIBRATION)))
    return "".join(pieces)


def variant_table(compressed: CompressedModel, variants: Sequence[Mapping[str, Any]]) -> str:
    """HTML table of what was measured per variant, and the choice in words."""
    figures = {figure.name: figure.value for figure in compressed.figures}
    names = [str(variant["name"]) for variant in variants]
    columns = [column for column in _COLUMNS if any(f"{name} {column}" in figures for name in names)]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{_cell(column, figures.get(f'{name} {column}'))}</td>" for column in columns)
        + "</tr>"
        for name in names
    )
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("variant", *columns))
    chosen = f"<p>Served: <b>{html.escape(compressed.chosen_variant)}</b>. {_reason(figures)}</p>"
    chosen += "".join(f"<p>{html.escape(note)}</p>" for note in compressed.notes)
    return f"{chosen}<table><tr>{head}</tr>{rows}</table>"


def _reason(figures: Mapping[str, float]) -> str:
    if "int8_accuracy_ratio" not in figures and "parameters" not in figures:
        return "Weights as trained, float32: there is no INT8 variant."
    if "int8_accuracy_ratio" not in figures:
        return f"Weights as trained, float32, {figures.get('parameters', 0):,.0f} of them; nothing is quantized."
    relation = "at or above" if figures["int8_chosen"] else "below"
    return (
        f"INT8 has {100 * figures['int8_accuracy_ratio']:.2f} % of the FP32 accuracy, {relation} the bound of "
        f"{100 * figures['int8_accuracy_bound']:.1f} %. The TensorRT graph is judged in ONNX Runtime with graph "
        "optimisations off and not timed here."
    )


def file_list(compressed: CompressedModel) -> str:
    """HTML table of the files and their sizes; nothing where the packing named none."""
    prefix = "file "
    files = {figure.name.removeprefix(prefix): figure.value for figure in compressed.figures if prefix in figure.name}
    if not files:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{size:,.0f}</td></tr>"
        for name, size in sorted(files.items(), key=lambda entry: -entry[1])
    )
    return f"<table><tr><th>file</th><th>bytes</th></tr>{rows}</table>"


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
    return "not timed" if value is None else _COLUMNS[column](value)
