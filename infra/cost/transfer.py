"""What it costs to bring models to every region, by the region that they come from.

A bundle is copied once to each other region; the region whose transfer is dearest should not be the home.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.cost.prices import PriceBook
from serving.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """One region as the place where models are made."""

    region: str
    usd: float
    """A month."""
    to: tuple[tuple[str, float], ...]
    """USD a month by the region that gets copies."""


def homes(prices: PriceBook, regions: Sequence[str], gb_a_month: float) -> tuple[Home, ...]:
    """Each region as home, the cheapest first. `regions` by the clouds' own names."""
    if gb_a_month < 0:
        raise InvalidInput("gb_a_month is wrong", got=gb_a_month, expected=">= 0")
    found = (_home(prices, home, regions, gb_a_month) for home in dict.fromkeys(regions))
    return tuple(sorted(found, key=lambda home: (home.usd, home.region)))


def _home(prices: PriceBook, home: str, regions: Sequence[str], gb: float) -> Home:
    to = tuple((other, gb * prices.transfer_usd(home, other)) for other in dict.fromkeys(regions) if other != home)
    return Home(region=home, usd=sum(usd for _, usd in to), to=to)
