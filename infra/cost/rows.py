"""One price: the form that every price file, ours or a cloud's, is read into."""

import math
from dataclasses import dataclass
from typing import Literal

from infra.cost.errors import InvalidPrices

Kind = Literal["instance", "storage", "disk", "database", "database_disk", "control_plane", "network", "transfer"]
"""An hour of an instance, a database class, a control plane or a network part; a GB a month of storage, disk or
database_disk; a GB of transfer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    kind: Kind
    item: str
    """The cloud's own name: `p4d.24xlarge`, `a2-highgpu-1g`, `Standard_ND96asr_v4`; for transfers the target region."""
    region: str
    """The cloud's own name, or `*`."""
    usd: float
    """For one `unit`."""
    unit: str = "hour"
    spot: bool = False

    def __post_init__(self) -> None:
        for name in ("item", "region"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidPrices(f"a price's {name} is wrong", got=value, expected="a text that is not empty")
        numeric = isinstance(self.usd, int | float) and not isinstance(self.usd, bool)
        if not numeric or not math.isfinite(self.usd) or self.usd < 0:
            raise InvalidPrices(f"the price of {self.describe()} is wrong", got=self.usd, expected="a number >= 0")
        if not isinstance(self.spot, bool):
            raise InvalidPrices(f"spot of {self.describe()} is wrong", got=self.spot, expected="true or false")

    def describe(self) -> str:
        return f"{'spot ' if self.spot is True else ''}{self.kind} {self.item} in {self.region}"
