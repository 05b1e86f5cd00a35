"""Kubernetes quantities as numbers: `500m`, `2`, `1Gi`, `1e3`."""

import re
from decimal import Decimal
from typing import Any, Final

_FORM: Final = re.compile(r"^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_FACTORS: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def parse_quantity(value: Any) -> Decimal:
    """ValueError for what is no quantity."""
    found = _FORM.match(str(value))
    if found is None:
        raise ValueError(f"quantities must match the regular expression {_FORM.pattern!r}, got {value!r}")
    return Decimal(found[1]) * _FACTORS[found[2] or ""]
