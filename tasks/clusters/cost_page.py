"""The page of costs: regions side by side at their least and most, where spending goes, and what to do about it."""

import html
from typing import TYPE_CHECKING, Final

from infra.machines import UnknownMachine, gpus
from tasks.clusters.cost_outcomes import AdviceRow, CostLine, CostReport, ForecastRow, RegionCost, SpotRow
from tasks.clusters.pages import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {
    "GPU machines": "#0969da",
    "other machines": "#54aeff",
    "disks": "#8c959f",
    "database": "#bf8700",
    "network": "#8250df",
    "control plane": "#2da44e",
    "storage": "#cf222e",
}
_PARTS: Final = {
    "disk": "disks",
    "database": "database",
    "database_disk": "database",
    "network": "network",
    "control_plane": "control plane",
}


def cost_page(report: CostReport) -> str:
    note = f" {html.escape(report.note)}" if report.note else ""
    head = (
        f"<p>Prices of {report.prices_of}.{note}</p><p>All regions: {report.least_usd:,.0f} USD a month with every "
        f"node group at its smallest, {report.most_usd:,.0f} at its largest.</p>"
    )
    problems = "".join(f"<p><b>Not known:</b> {html.escape(problem)}</p>" for problem in report.problems)
    return "\n".join((head, problems, _drawn(report), _regions(report), _spot(report), _advice(report), _homes(report)))


def _drawn(report: CostReport) -> str:
    """Smallest and largest have a scale each: between them lie GPUs that cost fifty times the rest."""
    from matplotlib.patches import Patch

    from tasks.drawing import drawing

    if not report.regions:
        return ""
    columns = 3 if report.forecast else 2
    with drawing(width=5.5 * columns, height=2 + 0.5 * len(report.regions), columns=columns) as drawn:
        _bars(drawn.axes[0], report.regions, most=False)
        _bars(drawn.axes[1], report.regions, most=True)
        handles = [Patch(color=colour) for colour in _COLOURS.values()]
        drawn.axes[0].figure.legend(
            handles, list(_COLOURS), loc="outside lower center", ncols=4, fontsize=9, frameon=False
        )
        if report.forecast:
            _fan(drawn.axes[2], report.forecast)
    return drawn.svg


def _bars(axes: "Axes", regions: list[RegionCost], *, most: bool) -> None:
    for row, region in enumerate(regions):
        left = 0.0
        for part, colour in _COLOURS.items():
            lines = (line for line in region.lines if _part(line) == part)
            usd = sum(line.most_usd if most else line.least_usd for line in lines)
            axes.barh(row, usd, 0.6, left=left, color=colour)
            left += usd
        axes.text(left, row, f" {left:,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(regions)), [region.region for region in regions])
    axes.invert_yaxis()
    axes.set_xlabel("USD a month")
    axes.set_title("Every group at its largest" if most else "Every group at its smallest")
    axes.margins(x=0.2)


def _part(line: CostLine) -> str:
    if line.kind == "instance":
        return "GPU machines" if _has_gpus(line.item) else "other machines"
    return _PARTS.get(line.kind, line.kind)


def _has_gpus(item: str) -> bool:
    """One whose name says that it has some counts, though nobody here knows how many."""
    try:
        return gpus(item) > 0
    except UnknownMachine:
        return True


def _fan(axes: "Axes", rows: list[ForecastRow]) -> None:
    for row in rows:
        days = range(1, len(row.usd) + 1)
        (line,) = axes.plot(days, row.usd, label=row.region)
        axes.fill_between(days, row.low, row.high, alpha=0.2, color=line.get_color())
        axes.plot([0], [row.now_usd], "o", color=line.get_color())
    axes.set_xlabel("days from the last one known")
    axes.set_ylabel("USD a month")
    axes.set_title(f"Spending, {rows[0].confidence:.0%} interval of a day")
    axes.legend(fontsize=8, frameon=False)


def _regions(report: CostReport) -> str:
    head = ("region", "least, USD a month", "most, USD a month", "not counted (charged by use)")
    rows = (
        (region.region, f"{region.least_usd:,.0f}", f"{region.most_usd:,.0f}", html.escape(", ".join(region.left_out)))
        for region in report.regions
    )
    return f"<h2>Regions</h2>{table(head, rows)}"


def _spot(report: CostReport) -> str:
    head = (
        "region",
        "machine",
        "on demand, USD an hour",
        "spot",
        "spot, of finished work",
        "pays until lost",
        "verdict",
    )
    rows = [(region.region, *_spot_row(row)) for region in report.regions for row in region.spot]
    return f"<h2>Spot against on demand</h2>{table(head, rows)}" if rows else ""


def _spot_row(row: SpotRow) -> tuple[str, ...]:
    prices = (f"{usd:.3f}" for usd in (row.on_demand_usd, row.spot_usd, row.finished_hour_usd))
    return (row.item, *prices, f"{row.break_even_share:.0%} of the hours", "spot" if row.pays else "on demand")


def _advice(report: CostReport) -> str:
    head = ("region", "node group", "machine", "in use", "nodes", "needed", "verdict", "saves, USD a month")
    rows = [_advice_row(row) for row in report.advice]
    return f"<h2>Sizes, by two weeks of use</h2>{table(head, rows)}" if rows else ""


def _advice_row(row: AdviceRow) -> tuple[str, ...]:
    names = (row.region, html.escape(row.node_group), html.escape(row.instance_type))
    figures = (f"{row.utilisation:.0%}", f"{row.nodes:.1f}", str(row.needed))
    return (*names, *figures, row.verdict, f"{row.saved_usd:,.0f}")


def _homes(report: CostReport) -> str:
    rows = [(home.region, f"{home.usd:,.2f}") for home in report.homes]
    head = ("models are made in", "to all others, USD a month")
    return f"<h2>Transfer between regions</h2>{table(head, rows)}" if rows else ""
