"""Spot against on demand: what an hour of finished work costs when some hours are taken back."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from infra.cost.errors import UnknownPrice
from infra.cost.prices import PriceBook
from serving.errors import InvalidInput

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interruptions:
    """How often the cloud takes a machine back, and what that costs the work on it."""

    a_day: float = 0.5
    """For one machine. Clouds publish a range for each type and region; measure your own."""
    lost: timedelta = timedelta(minutes=15)
    """From the last checkpoint to running again: docs/operator.md says what the operator measures."""

    def __post_init__(self) -> None:
        if self.a_day < 0 or self.lost < timedelta(0):
            raise InvalidInput("interruptions are wrong", got=(self.a_day, str(self.lost)), expected=">= 0")

    @property
    def lost_share(self) -> float:
        """Of the hours that are paid; 1 means that nothing is ever finished."""
        return min(1.0, self.a_day * (self.lost / _DAY))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpotChoice:
    item: str
    region: str
    on_demand_usd: float
    """An hour."""
    spot_usd: float
    lost_share: float

    @property
    def finished_hour_usd(self) -> float:
        """What an hour of work that is kept costs on spot; infinite where none is."""
        return self.spot_usd / (1 - self.lost_share) if self.lost_share < 1 else float("inf")

    @property
    def break_even_share(self) -> float:
        """On demand is cheaper once more than this share of the hours is lost."""
        return 1 - self.spot_usd / self.on_demand_usd if self.on_demand_usd else 0.0

    @property
    def pays(self) -> bool:
        return self.finished_hour_usd < self.on_demand_usd


def spot_choice(
    prices: PriceBook, item: str, region: str, interruptions: Interruptions | None = None
) -> SpotChoice | None:
    """None where the book has no spot price for it: not every machine is sold so."""
    try:
        spot = prices.hourly_usd(item, region, spot=True)
    except UnknownPrice:
        return None
    return SpotChoice(
        item=item,
        region=region,
        on_demand_usd=prices.hourly_usd(item, region),
        spot_usd=spot,
        lost_share=(interruptions or Interruptions()).lost_share,
    )
