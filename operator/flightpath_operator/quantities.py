"""Kubernetes' resource quantities: the server rewrites 1000m to 1, which is no change."""

import re
from decimal import Decimal
from typing import Final

_PATTERN: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(quantity: int | str) -> Decimal:
    """The amount in units; ValueError where it is no quantity."""
    match = _PATTERN.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"a quantity must look like 2, 500m or 16Gi, got {quantity!r}")
    number, unit = Decimal(match[1]), match[2] or ""
    if unit in _BINARY:
        return number * Decimal(2) ** _BINARY[unit]
    exponent = int(unit[1:]) if unit[:1] in ("e", "E") and len(unit) > 1 else _DECIMAL.get(unit, 0)
    return number * Decimal(10) ** exponent


def same_quantity(one: int | str, other: int | str) -> bool:
    """Whether two spellings mean one amount; what is no quantity equals only itself."""
    if one == other:
        return True
    try:
        return parse_quantity(one) == parse_quantity(other)
    except ValueError:
        return False
