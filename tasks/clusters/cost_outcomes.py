"""Costs as Flyte carries them. USD are of a month where nothing else is said."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class CostLine:
    address: str
    kind: str
    item: str
    spot: bool
    least_usd: float
    most_usd: float


@dataclass(kw_only=True)
class SpotRow:
    item: str
    on_demand_usd: float
    """An hour, as the two below."""
    spot_usd: float
    finished_hour_usd: float
    """An hour of work that no interruption took."""
    break_even_share: float
    """On demand is cheaper once more than this share of the hours is lost."""
    pays: bool


@dataclass(kw_only=True)
class RegionCost:
    region: str
    cloud_region: str
    prices_of: str
    """The day of the price file."""
    note: str
    least_usd: float
    most_usd: float
    lines: list[CostLine] = field(default_factory=list)
    spot: list[SpotRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class AdviceRow:
    region: str
    node_group: str
    instance_type: str
    verdict: str
    """shrink | keep | grow"""
    nodes: float
    needed: int
    utilisation: float
    saved_usd: float


@dataclass(kw_only=True)
class ForecastRow:
    region: str
    now_usd: float
    usd: list[float]
    """Day by day from tomorrow."""
    low: list[float]
    high: list[float]
    day: str
    """The last one."""
    confidence: float


@dataclass(kw_only=True)
class HomeRow:
    region: str
    usd: float
    """To bring models from here to every other region."""


@dataclass(kw_only=True)
class CostReport:
    prices_of: str
    note: str
    least_usd: float
    most_usd: float
    regions: list[RegionCost] = field(default_factory=list)
    advice: list[AdviceRow] = field(default_factory=list)
    forecast: list[ForecastRow] = field(default_factory=list)
    homes: list[HomeRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be asked or told, by region."""
    page: str = ""
