"""The rollout timeline: when each region was in which state, and what its gates measured."""

import html
import io

from tasks.promotion.outcome import PromotionOutcome, RegionOutcome, StepOutcome

_COLOURS = {
    "replicating": "#8c959f",
    "verified": "#6e7781",
    "starting": "#54aeff",
    "golden": "#bf8700",
    "canary": "#2da44e",
    "live": "#116329",
    "rolled_back": "#cf222e",
    "aborted": "#a40e26",
}


def timeline(outcome: PromotionOutcome) -> str:
    """HTML: one bar per region over time (s since the order), then a table of every gate."""
    return f"{_bars(outcome)}\n{_gate_table(outcome)}"


def _bars(outcome: PromotionOutcome) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    steps = [step for region in outcome.regions for step in region.steps]
    if not steps:
        return "<p>No region had begun.</p>"
    start = min(step.started_at for step in steps)
    figure, axes = pyplot.subplots(figsize=(10, 1.2 + 0.6 * len(outcome.regions)))
    try:
        for row, region in enumerate(outcome.regions):
            for step in region.steps:
                width = max(step.finished_at - step.started_at, 0.02)
                axes.barh(row, width, left=step.started_at - start, color=_COLOURS.get(step.state, "#d0d7de"))
                if step.state == "canary":
                    axes.text(
                        step.started_at - start + width / 2,
                        row,
                        f"{step.percent} %",
                        ha="center",
                        va="center",
                        color="w",
                    )
        axes.set_yticks(range(len(outcome.regions)), [region.region for region in outcome.regions])
        axes.invert_yaxis()
        axes.set_xlabel("seconds since the first region began")
        axes.set_title(f"{outcome.model} version {outcome.version}: {outcome.state}")
        shown = [state for state in _COLOURS if any(step.state == state for step in steps)]
        axes.legend(handles=[Patch(color=_COLOURS[state], label=state) for state in shown], loc="upper right")
        picture = io.StringIO()
        figure.savefig(picture, format="svg", bbox_inches="tight")
    finally:
        pyplot.close(figure)
    return picture.getvalue()[picture.getvalue().index("<svg") :]


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
