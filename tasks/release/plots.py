"""The rollout timeline: when each region was in which state, and what its gates measured."""

import html
from typing import TYPE_CHECKING

from tasks.promotion.outcome import PromotionOutcome, RegionOutcome, StepOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_READABLE_SHARE = 0.05
"""A bar below this share of the whole time has no room for its label."""

_COLOURS = {
    "replicating": "#8c959f",
    "verified": "#6e7781",
    "starting": "#54aeff",
    "golden": "#bf8700",
    "shadow": "#8250df",
    "canary": "#2da44e",
    "watch": "#1a7f37",
    "live": "#116329",
    "rolled_back": "#cf222e",
    "aborted": "#a40e26",
}


def timeline(outcome: PromotionOutcome) -> str:
    """HTML: one bar per region over time (s since the order), then a table of every gate."""
    return f"{_bars(outcome)}\n{_gate_table(outcome)}"


def _bars(outcome: PromotionOutcome) -> str:
    from tasks.drawing import drawing

    steps = [step for region in outcome.regions for step in region.steps]
    if not steps:
        return "<p>No region had begun.</p>"
    start = min(step.started_at for step in steps)
    whole_s = max(step.finished_at for step in steps) - start
    with drawing(width=10, height=1.6 + 0.6 * len(outcome.regions)) as drawn:
        (axes,) = drawn.axes
        for row, region in enumerate(outcome.regions):
            for step in region.steps:
                _bar(axes, row, step, start=start, whole_s=whole_s)
        axes.set_yticks(range(len(outcome.regions)), [region.region for region in outcome.regions])
        axes.invert_yaxis()
        axes.set_xlabel("seconds since the first region began")
        axes.set_title(f"{outcome.model} version {outcome.version}: {outcome.state}")
        _legend(axes, {step.state for step in steps})
    return drawn.svg


def _bar(axes: "Axes", row: int, step: StepOutcome, *, start: float, whole_s: float) -> None:
    width = max(step.finished_at - step.started_at, 0.02)
    left = step.started_at - start
    opacity = 0.4 + 0.6 * step.percent / 100 if step.state == "canary" else 1.0
    axes.barh(row, width, left=left, color=_COLOURS.get(step.state, "#d0d7de"), alpha=opacity)
    if step.state == "canary" and width > _READABLE_SHARE * whole_s:
        axes.text(left + width / 2, row, f"{step.percent} %", ha="center", va="center", fontsize=9)


def _legend(axes: "Axes", states: set[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=state) for state, colour in _COLOURS.items() if state in states]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _gate_table(outcome: PromotionOutcome) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in ("region", "step", "requests", "synthetic", "gate", "measured", "allowed", "unit", "status", "note")
    )
    rows = "".join(_step_rows(region, step) for region in outcome.regions for step in region.steps)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _step_rows(region: RegionOutcome, step: StepOutcome) -> str:
    name = f"{step.state} {step.percent} %" if step.state == "canary" else step.state
    return "".join(
        _row(region.region, name, step.requests, step.synthetic, gate.gate, gate.measured, gate.allowed, gate.unit)
        + f"<td>{html.escape(gate.status)}</td><td>{html.escape(gate.note)}</td></tr>"
        for gate in step.gates
    )


def _row(*cells: object) -> str:
    shown = (f"{cell:.4g}" if isinstance(cell, float) else "n/a" if cell is None else str(cell) for cell in cells)
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown)
