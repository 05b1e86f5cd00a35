"""The cost tables of docs/infra.md. `python -m tests.fakes.cost_table` writes them anew, a test keeps them current."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Final

from infra.cost.plan import cost_of_plan
from infra.cost.prices import load_prices
from infra.cost.spot import Interruptions
from infra.cost.table import regions_table, spot_table
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
    return f"{regions_table(costs, prices)}\n\n{spot_table(machines, prices, often)}\n"


def with_tables(page: str) -> str:
    found, count = _BLOCK.subn(lambda match: f"{match[1]}{tables()}{match[2]}", page)
    assert count == 1, f"{PAGE} has {count} places for costs, expected 1"
    return found


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
