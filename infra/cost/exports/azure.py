"""Azure: the retail prices API, as JSON pages or as a table with the same columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from infra.cost.errors import InvalidPrices
from infra.cost.rows import Price


def retail_prices(document: Mapping[str, Any]) -> Iterator[Price]:
    """Linux virtual machines on demand and spot, blob storage, PostgreSQL servers; the first tier of each."""
    for row in document["Items"]:
        if row.get("currencyCode", "USD") != "USD":
            raise InvalidPrices("the currency is wrong", got=row["currencyCode"], expected="USD")
        if row.get("type") != "Consumption" or float(row.get("tierMinimumUnits") or 0) > 0:
            continue
        yield from _price(row, float(row["retailPrice"]), row.get("armRegionName", ""))


def _price(row: Mapping[str, Any], usd: float, region: str) -> Iterator[Price]:
    service, unit = row.get("serviceName", ""), row.get("unitOfMeasure", "")
    name, machine = row.get("skuName", ""), row.get("armSkuName", "")
    if not region or usd <= 0:
        return
    if service == "Virtual Machines" and unit == "1 Hour" and machine:
        # Low Priority is the older kind of spot, Windows carries a licence.
        if "Windows" not in row.get("productName", "") and "Low Priority" not in name:
            yield Price(kind="instance", item=machine, region=region, usd=usd, spot=name.endswith("Spot"))
    elif service == "Azure Database for PostgreSQL" and unit == "1 Hour" and machine:
        yield Price(kind="database", item=machine, region=region, usd=usd)
    elif service == "Storage" and unit == "1 GB/Month" and row.get("meterName", "").endswith("Data Stored"):
        item = row["meterName"].removesuffix(" Data Stored").lower().replace(" ", "-")
        yield from [Price(kind="storage", item=f"blob-{item}", region=region, usd=usd, unit="GB-month")]
