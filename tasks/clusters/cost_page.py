"""The page of costs: regions side by side at their least and most, where spending goes, and what to do about it."""

import html
from typing import TYPE_CHECKING, Final

from tasks.clusters.cost_outcomes import AdviceRow, CostReport, ForecastRow, RegionCost, SpotRow
from tasks.clusters.pages import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {
    "instance": "#0969da",
    "disk": "#54aeff",
    "database": "#bf8700",
    "database_disk": "#e3b341",
    "network": "#8250df",
    "control_plane": "#2da44e",
    "storage": "#6e7781",
    "transfer": "#cf222e",
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
    from tasks.evaluation.drawing import drawing

    if not report.regions:
        return ""
    with drawing(width=12, height=1.8 + 0.5 * len(report.regions), columns=2 if report.forecast else 1) as drawn:
        _bars(drawn.axes[0], report.regions)
        if report.forecast:
            _fan(drawn.axes[1], report.forecast)
    return drawn.svg


def _bars(axes: "Axes", regions: list[RegionCost]) -> None:
    for row, region in enumerate(regions):
        for offset, most in ((-0.2, False), (0.2, True)):
            left = 0.0
            for kind, colour in _COLOURS.items():
                usd = sum(line.most_usd if most else line.least_usd for line in region.lines if line.kind == kind)
                axes.barh(row + offset, usd, 0.36, left=left, color=colour, alpha=1.0 if most else 0.55)
                left += usd
            axes.text(left, row + offset, f" {left:,.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(regions)), [region.region for region in regions])
    axes.invert_yaxis()
    axes.set_xlabel("USD a month; above: smallest, below: largest")
    axes.margins(x=0.15)
    used = {line.kind for region in regions for line in region.lines if line.most_usd}
    handles = [axes.barh(0, 0, color=colour) for kind, colour in _COLOURS.items() if kind in used]
    axes.legend(handles, [kind for kind in _COLOURS if kind in used], fontsize=8, frameon=False, loc="lower right")


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
