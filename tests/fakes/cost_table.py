"""The cost tables of docs/infra.md. `python -m tests.fakes.cost_table` writes them anew, a test keeps them current."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from infra.cost.plan import MonthlyCost, cost_of_plan
from infra.cost.prices import HOURS_A_MONTH, PriceBook, load_prices
from infra.cost.spot import Interruptions, spot_choice
from infra.machines import gpus
from tests.fakes.cloud_plans import azure_west_europe, gcp_europe_west
from tests.fakes.recorded_plans.recording import REGIONS, recorded

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "infra.md"
_BLOCK: Final = re.compile(r"(<!-- costs -->\n).*?(<!-- /costs -->)", re.DOTALL)


def tables() -> str:
    prices = load_prices(ROOT / "examples" / "infra" / "prices.json")
    plans = {name: recorded(name) for name in REGIONS}
    plans |= {"gcp-europe-west": gcp_europe_west(), "azure-west-europe": azure_west_europe()}
    costs = {name: cost_of_plan(plan, prices) for name, plan in plans.items()}
    demands = (line.demand for cost in costs.values() for line in cost.lines if line.demand.kind == "instance")
    machines = sorted({(demand.item, demand.region) for demand in demands if gpus(demand.item)})
    often = Interruptions(a_day=1, lost=timedelta(minutes=30))
    return f"{_regions_table(costs, prices)}\n\n{_spot_table(machines, prices, often)}\n"


def with_tables(page: str) -> str:
    found, count = _BLOCK.subn(lambda match: f"{match[1]}{tables()}{match[2]}", page)
    assert count == 1, f"{PAGE} has {count} places for costs, expected 1"
    return found


def _regions_table(costs: Mapping[str, MonthlyCost], prices: PriceBook) -> str:
    """One row a region: everything at its smallest, everything at its largest, and what of that are GPU machines."""
    head = ("environment", "cloud's region", "at least", "at most", "of it GPU machines", "GPUs at most")
    rows = [_region(name, cost) for name, cost in costs.items()]
    least, most = (sum(getattr(cost, name) for cost in costs.values()) for name in ("least_usd", "most_usd"))
    total = (
        "all",
        "",
        _usd(least),
        _usd(most),
        _usd(sum(map(_gpu_usd, costs.values()))),
        str(_gpu_sum(costs.values())),
    )
    return f"USD a month, prices of {prices.day}.\n\n{_table(head, [*rows, total])}"


def _spot_table(machines: Iterable[tuple[str, str]], prices: PriceBook, interruptions: Interruptions) -> str:
    """`machines`: type and region."""
    head = ("machine", "region", "on demand", "spot", "spot, of finished work", "pays until this share is lost")
    rows = []
    for item, region in machines:
        if (choice := spot_choice(prices, item, region, interruptions)) is not None:
            usd = (f"{value:.2f}" for value in (choice.on_demand_usd, choice.spot_usd, choice.finished_hour_usd))
            rows.append((f"`{item}`", region, *usd, f"{choice.break_even_share:.0%}"))
    minutes = interruptions.lost.total_seconds() / 60
    told = f"interruptions: {interruptions.a_day:g} a day for each machine, at {minutes:g} minutes of work"
    return f"USD an hour, prices of {prices.day}; {told}.\n\n{_table(head, rows)}"


def _region(name: str, cost: MonthlyCost) -> tuple[str, ...]:
    place = next((line.demand.region for line in cost.lines), "")
    figures = (_usd(cost.least_usd), _usd(cost.most_usd), _usd(_gpu_usd(cost)))
    return (name, place, *figures, str(_gpu_sum([cost])))


def _gpu_usd(cost: MonthlyCost) -> float:
    return sum(line.most_usd for line in cost.lines if line.demand.kind == "instance" and gpus(line.demand.item))


def _gpu_sum(costs: Iterable[MonthlyCost]) -> int:
    demands = (line.demand for cost in costs for line in cost.lines if line.demand.kind == "instance")
    return sum(round(demand.most / HOURS_A_MONTH) * gpus(demand.item) for demand in demands)


def _usd(value: float) -> str:
    return f"{value:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
