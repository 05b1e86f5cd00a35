"""AWS: offer files of the price list, in JSON and in CSV, and the spot price history.

Of EC2 the Linux instances with shared tenancy and no software on them count, of RDS PostgreSQL in one zone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.cost.errors import InvalidPrices
from infra.cost.rows import Price

_ON_INSTANCE = {
    "productFamily": ("Compute Instance", "Compute Instance (bare metal)"),
    "operatingSystem": ("Linux",),
    "tenancy": ("Shared",),
    "preInstalledSw": ("NA",),
    "capacitystatus": ("Used",),
}
_ON_DATABASE = {
    "productFamily": ("Database Instance",),
    "databaseEngine": ("PostgreSQL",),
    "deploymentOption": ("Single-AZ",),
}
_COLUMNS = {
    "Product Family": "productFamily",
    "Instance Type": "instanceType",
    "Operating System": "operatingSystem",
    "Tenancy": "tenancy",
    "Pre Installed S/W": "preInstalledSw",
    "CapacityStatus": "capacitystatus",
    "Region Code": "regionCode",
    "Database Engine": "databaseEngine",
    "Deployment Option": "deploymentOption",
    "Volume API Name": "volumeApiName",
    "Volume Type": "volumeType",
    "Storage Class": "storageClass",
    "From Region Code": "fromRegionCode",
    "To Region Code": "toRegionCode",
    "Transfer Type": "transferType",
    "serviceCode": "servicecode",
}
"""The CSV's titles, and what the JSON calls the same."""


def offer_file(document: Mapping[str, Any]) -> Iterator[Price]:
    """`{"products": {sku: …}, "terms": {"OnDemand": {sku: …}}}`."""
    products = document.get("products", {})
    for sku, offers in document["terms"].get("OnDemand", {}).items():
        product = products.get(sku, {})
        attributes = {**product.get("attributes", {}), "productFamily": product.get("productFamily", "")}
        for offer in offers.values():
            usd = _first_tier(offer.get("priceDimensions", {}).values())
            if usd is not None:
                yield from _price(attributes, usd)


def offer_rows(rows: Iterable[Mapping[str, str]]) -> Iterator[Price]:
    """The same as a table: one row for each tier; the first one counts."""
    for row in rows:
        if row["TermType"] != "OnDemand" or row.get("Currency", "USD") != "USD" or not _is_first(row):
            continue
        attributes = {ours: row.get(title, "") for title, ours in _COLUMNS.items()}
        usd = _number(row["PricePerUnit"])
        if usd > 0:
            yield from _price(attributes, usd)


def spot_history(document: Mapping[str, Any]) -> Iterator[Price]:
    """The newest price of each type and zone; a region's is that of its dearest zone, since any of them may be got."""
    newest: dict[tuple[str, str], tuple[str, float]] = {}
    for row in document["SpotPriceHistory"]:
        if "Linux" not in row.get("ProductDescription", ""):
            continue
        key = row["InstanceType"], row["AvailabilityZone"]
        newest[key] = max(newest.get(key, ("", 0.0)), (str(row["Timestamp"]), _number(row["SpotPrice"])))
    dearest: dict[tuple[str, str], float] = {}
    for (instance, zone), (_, usd) in newest.items():
        region = re.sub(r"(?<=\d)[a-z]$", "", zone)
        dearest[instance, region] = max(usd, dearest.get((instance, region), 0.0))
    for (instance, region), usd in dearest.items():
        yield Price(kind="instance", item=instance, region=region, usd=usd, spot=True)


def _price(product: Mapping[str, str], usd: float) -> Iterator[Price]:
    region = product.get("regionCode", "")
    if _holds(product, _ON_INSTANCE):
        yield Price(kind="instance", item=product["instanceType"], region=region, usd=usd)
    elif _holds(product, _ON_DATABASE):
        yield Price(kind="database", item=product["instanceType"], region=region, usd=usd)
    elif product.get("productFamily") == "Storage" and product.get("volumeApiName"):
        yield Price(kind="disk", item=product["volumeApiName"], region=region, usd=usd, unit="GB-month")
    elif product.get("productFamily") == "Storage" and product.get("storageClass") == "General Purpose":
        yield Price(kind="storage", item="s3", region=region, usd=usd, unit="GB-month")
    elif product.get("productFamily") == "Data Transfer":
        yield from _transfer(product, usd)


def _transfer(product: Mapping[str, str], usd: float) -> Iterator[Price]:
    source, target = product.get("fromRegionCode"), product.get("toRegionCode")
    if not source:
        return
    if product.get("transferType") == "InterRegion Outbound" and target:
        yield Price(kind="transfer", item=target, region=source, usd=usd, unit="GB")
    elif product.get("transferType") == "AWS Outbound":
        yield Price(kind="transfer", item="internet", region=source, usd=usd, unit="GB")


def _holds(product: Mapping[str, str], wanted: Mapping[str, tuple[str, ...]]) -> bool:
    return all(product.get(name) in values for name, values in wanted.items()) and bool(product.get("instanceType"))


def _first_tier(dimensions: Iterable[Mapping[str, Any]]) -> float | None:
    """The lowest tier that is not free; None for a free or a reserved offer."""
    tiers = sorted(
        (_number(tier.get("beginRange", "0")), usd)
        for tier in dimensions
        if (usd := _number(tier.get("pricePerUnit", {}).get("USD", "0"))) > 0
    )
    return tiers[0][1] if tiers else None


def _is_first(row: Mapping[str, str]) -> bool:
    return (row.get("StartingRange") or "0").strip() in ("0", "0.0")


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as broken:
        raise InvalidPrices("a price of the export is wrong", got=text, expected="a number") from broken
