"""Google: the Cloud Billing catalogue, which prices cores, memory and GPUs; machines are put together from them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from infra.cost.rows import Price
from infra.machines import MACHINES

_PART: Final = re.compile(r"(Spot Preemptible )?(?P<family>[A-Z]\d[A-Z]?) (Predefined )?Instance (?P<part>Core|Ram) ")
_GPU: Final = re.compile(r"(Spot Preemptible )?(attached to )?Nvidia (Tesla )?(?P<gpu>[A-Z]\d+) ")

Parts = dict[tuple[str, str, bool], float]
"""USD an hour of one part (`n2 core`, `n2 ram`, `l4 gpu`), by region and whether it is spot."""


def catalogue(document: Mapping[str, Any]) -> Iterator[Price]:
    """`{"skus": [{"description", "category", "serviceRegions", "pricingInfo"}]}`, on demand and spot."""
    parts: Parts = {}
    for sku in document["skus"]:
        name = _part_name(sku)
        usage = sku.get("category", {}).get("usageType")
        if name and usage in ("OnDemand", "Preemptible"):
            for region in sku.get("serviceRegions", ()):
                parts[name, region, usage == "Preemptible"] = _usd(sku)
    yield from _machines(parts)


def _part_name(sku: Mapping[str, Any]) -> str | None:
    description = sku.get("description", "")
    if found := _PART.match(description):
        return f"{found['family'].lower()} {found['part'].lower()}"
    found = _GPU.match(description)
    return f"{found['gpu'].lower()} gpu" if found else None


def _machines(parts: Parts) -> Iterator[Price]:
    for region, spot in sorted({key[1:] for key in parts}):
        for name, machine in MACHINES.items():
            family = name.partition("-")[0]
            wanted = {
                f"{family} core": machine.vcpus,
                f"{family} ram": machine.memory_gib,
                **({f"{machine.gpu} gpu": machine.gpus} if machine.gpus else {}),
            }
            found = [(parts.get((part, region, spot)), amount) for part, amount in wanted.items()]
            if all(usd is not None for usd, _ in found):
                usd = sum(usd * amount for usd, amount in found if usd is not None)
                yield Price(kind="instance", item=name, region=region, usd=usd, spot=spot)


def _usd(sku: Mapping[str, Any]) -> float:
    """The last tier: the first of a tiered one is the free allowance."""
    rates = sku["pricingInfo"][-1]["pricingExpression"]["tieredRates"]
    price = rates[-1]["unitPrice"]
    return int(price.get("units") or 0) + int(price.get("nanos", 0)) / 1e9
