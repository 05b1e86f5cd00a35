"""Whether node groups have the size that their use asks for, from days of utilisation (`usage.py` asks Prometheus).

Advice, never an action: a group that is kept for a coming training looks idle too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from infra.cost.errors import TooFewDays
from infra.cost.prices import HOURS_A_MONTH, PriceBook
from serving.errors import InvalidInput

FEWEST_DAYS: Final = 7
TARGET: Final = 0.85
"""The objective of docs/observability.md for GPUs in use."""
_FULL: Final = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupUse:
    """One node group over some days, a figure each day."""

    node_group: str
    instance_type: str
    spot: bool
    nodes: tuple[float, ...]
    """Mean number of nodes."""
    utilisation: tuple[float, ...]
    """Of their GPUs, 0 to 1."""

    def __post_init__(self) -> None:
        if len(self.nodes) != len(self.utilisation):
            got = f"{len(self.nodes)} and {len(self.utilisation)} days"
            raise InvalidInput(f"the use of {self.node_group} is wrong", got=got, expected="as many of both")


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    node_group: str
    instance_type: str
    verdict: Literal["shrink", "keep", "grow"]
    nodes: float
    """Mean, as it was."""
    needed: int
    """Nodes that carry the busiest day at the target."""
    utilisation: float
    """Mean over the days, weighted by nodes."""
    saved_usd: float
    """A month, if the group had the nodes that it needs; below 0 where it should grow."""


def advise(use: GroupUse, prices: PriceBook, region: str, *, target: float = TARGET) -> Advice:
    """By the busiest day: an average would take the nodes away on the day when they are needed."""
    if not 0 < target <= 1:
        raise InvalidInput("the target is wrong", got=target, expected="0 < target <= 1")
    if len(use.nodes) < FEWEST_DAYS:
        got = f"{len(use.nodes)} days of {use.node_group}"
        raise TooFewDays("advice needs more history", got=got, expected=f">= {FEWEST_DAYS}")
    busy = [nodes * used for nodes, used in zip(use.nodes, use.utilisation, strict=True)]
    # A hair below a whole number of nodes is that number: 0.85 * 4 / 0.85 is not exactly 4.
    needed = math.ceil(round(max(busy) / target, 9))
    mean = sum(use.nodes) / len(use.nodes)
    verdict = _verdict(mean, needed, use.utilisation)
    hourly = prices.hourly_usd(use.instance_type, region, spot=use.spot)
    return Advice(
        node_group=use.node_group,
        instance_type=use.instance_type,
        verdict=verdict,
        nodes=mean,
        needed=needed,
        utilisation=sum(busy) / sum(use.nodes) if sum(use.nodes) else 0.0,
        saved_usd=0.0 if verdict == "keep" else (mean - needed) * hourly * HOURS_A_MONTH,
    )


def _verdict(mean: float, needed: int, utilisation: Sequence[float]) -> Literal["shrink", "keep", "grow"]:
    if mean - needed >= 1:
        return "shrink"
    if needed - mean >= 1 or (needed > mean and max(utilisation) >= _FULL):
        return "grow"
    return "keep"
