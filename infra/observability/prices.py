"""The price rules of one region, from the price file that everything about cost reads (infra/cost/prices.py).

A price becomes a recorded constant, so that dashboards and alerts multiply it with the nodes that are there, and a new
price file is a reload and no deployment.
"""

from collections.abc import Iterator
from typing import Any

from infra.cost.prices import ANY_REGION, PriceBook
from infra.observability.files import Rule, group
from serving.errors import InvalidInput


def price_rules(book: PriceBook, region: str, *, budget_usd: float) -> dict[str, Any]:
    """`region` by the cloud's own name, such as us-east-1; `budget_usd` for one month of it."""
    if budget_usd <= 0:
        raise InvalidInput("budget is wrong", got=budget_usd, expected="USD a month, above 0")
    rules = list(_prices(book, region))
    if not rules:
        raise InvalidInput("no instance has a price here", got=region, expected=_regions(book))
    rules.append(Rule("flightpath:budget:usd_per_month", f"vector({budget_usd})"))
    return {"groups": [group(f"prices-{region}", rules)]}


def _prices(book: PriceBook, region: str) -> Iterator[Rule]:
    for price in book.instances():
        if price.region in (region, ANY_REGION):
            labels = {"instance_type": price.item, "capacity_type": "spot" if price.spot else "on_demand"}
            yield Rule("flightpath:node_price:usd_per_hour", f"vector({price.usd})", labels)


def _regions(book: PriceBook) -> str:
    return " | ".join(sorted({price.region for price in book.instances()})) or "a book with instances"
