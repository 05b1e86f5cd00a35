"""The monthly cost of a plan before it is applied, at its least and at its most.

Counted is what has an hour or a size in the plan; stored objects are counted as far as the user tells how many, and
what is charged by use and left out is named. A price that is missing is an error, never zero.

    cost = cost_of_plan(plan.document, load_prices(path))
    cost.least_usd, cost.most_usd
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from infra.cost.demand import Demand, demands_of
from infra.cost.prices import PriceBook
from infra.planned import PlannedResource, PlannedWorld, read_world

_BUCKETS: Final[Mapping[str, str]] = MappingProxyType(
    {"aws_s3_bucket": "s3", "google_storage_bucket": "gcs-standard", "azurerm_storage_account": "blob-hot-zrs"}
)
_BY_USE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aws_cloudwatch_log_group": "logs by the GB",
        "aws_ecr_repository": "images by the GB",
        "aws_kms_key": "keys and calls",
        "aws_prometheus_workspace": "samples",
        "aws_route53_health_check": "probes",
        "aws_secretsmanager_secret": "secrets and calls",
        "google_kms_crypto_key": "keys and calls",
        "azurerm_key_vault_key": "keys and calls",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What no plan tells."""

    stored_gb: float = 0
    """In each bucket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One demand with its price."""

    demand: Demand
    usd: float
    """For one unit."""

    @property
    def least_usd(self) -> float:
        return self.usd * self.demand.least

    @property
    def most_usd(self) -> float:
        return self.usd * self.demand.most


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthlyCost:
    lines: tuple[Line, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What is charged by use and was not counted: what, and how many resources."""

    @property
    def least_usd(self) -> float:
        return sum(line.least_usd for line in self.lines)

    @property
    def most_usd(self) -> float:
        return sum(line.most_usd for line in self.lines)


def cost_of_plan(document: Mapping[str, Any], prices: PriceBook, *, usage: Usage | None = None) -> MonthlyCost:
    """Raises UnknownPrice, which names what has none, and UnknownRegion."""
    return cost_of_world(read_world(document), prices, usage=usage)


def cost_of_world(world: PlannedWorld, prices: PriceBook, *, usage: Usage | None = None) -> MonthlyCost:
    usage = usage or Usage()
    lines = [priced(demand, prices) for demand in demands_of(world) if demand.most > 0]
    lines += [priced(demand, prices) for demand in _stored(world, usage)]
    return MonthlyCost(lines=tuple(lines), left_out=_left_out(world, usage))


def priced(demand: Demand, prices: PriceBook) -> Line:
    return Line(demand=demand, usd=prices.find(demand.kind, demand.item, demand.region, spot=demand.spot).usd)


def _stored(world: PlannedWorld, usage: Usage) -> Iterable[Demand]:
    if not usage.stored_gb:
        return
    for bucket in world.of_type(*_BUCKETS):
        place = _place_of_bucket(bucket, world)
        item, gb = _BUCKETS[bucket.type], usage.stored_gb
        yield Demand(address=bucket.address, kind="storage", item=item, region=place, least=gb, most=gb)


def _place_of_bucket(bucket: PlannedResource, world: PlannedWorld) -> str:
    own = bucket.one("location")
    return str(own or world.provider_regions.get("aws", "unknown")).lower()


def _left_out(world: PlannedWorld, usage: Usage) -> dict[str, int]:
    by_use = {**_BY_USE, **({} if usage.stored_gb else dict.fromkeys(_BUCKETS, "stored objects"))}
    return dict(Counter(by_use[resource.type] for resource in world.staying if resource.type in by_use))
