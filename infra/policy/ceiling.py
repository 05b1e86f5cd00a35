"""Rule cost-ceiling: what a plan costs in a month, at its least and at its most, stays below what was granted."""

from collections.abc import Iterator
from typing import Final

from infra.cost.errors import UnknownPrice
from infra.cost.plan import MonthlyCost, cost_of_world
from infra.cost.prices import PriceBook
from infra.planned import PlannedWorld
from infra.policy.findings import Breach

RULE: Final = "cost-ceiling"


def above_ceiling(world: PlannedWorld, prices: PriceBook, *, least_usd: float, most_usd: float) -> Iterator[Breach]:
    """A thing without a price breaks it too: what cannot be counted cannot be below."""
    try:
        cost = cost_of_world(world, prices)
    except UnknownPrice as unknown:
        yield Breach(resource="plan", rule=RULE, got=f"{unknown.what} in {unknown.got}", expected="a price for it")
        return
    for name, got, granted in (("least", cost.least_usd, least_usd), ("most", cost.most_usd, most_usd)):
        if got > granted:
            shown = f"{got:,.0f} USD a month at {name}"
            yield Breach(
                resource=_dearest(cost, name), rule=RULE, got=shown, expected=f"{granted:,.0f} USD or less for the plan"
            )


def _dearest(cost: MonthlyCost, name: str) -> str:
    line = max(cost.lines, key=lambda line: line.least_usd if name == "least" else line.most_usd)
    return line.demand.address
