"""Reads the clouds' own price exports, told apart by what is in them.

AWS: offer files of the price list (JSON and CSV; EC2, RDS, S3, data transfer) and `describe-spot-price-history`.
Azure: the retail prices API (JSON pages, or the same columns as CSV). Google: the Cloud Billing catalogue (JSON).
Reservations, savings plans and tiers above the first are left out: a forecast with them needs the contract.
"""

import csv
from collections.abc import Iterator, Mapping
from typing import Any

from infra.cost.errors import InvalidPrices
from infra.cost.exports import aws, azure, gcp
from infra.cost.rows import Price

_EXPECTED = "our own form (schema_version), an AWS offer file or spot history, Azure retail prices or Google SKUs"


def from_json(document: Any) -> list[Price]:
    """Rows of one export; several pages of one may lie in a list."""
    if isinstance(document, list):
        return [price for page in document for price in from_json(page)]
    for key, read in (
        ("SpotPriceHistory", aws.spot_history),
        ("Items", azure.retail_prices),
        ("skus", gcp.catalogue),
        ("terms", aws.offer_file),
    ):
        if isinstance(document, Mapping) and key in document:
            return _some(read(document), key)
    got = sorted(document) if isinstance(document, Mapping) else type(document).__name__
    raise InvalidPrices("the price file is of no known form", got=got, expected=_EXPECTED)


def from_csv(text: str) -> list[Price]:
    """AWS puts lines about the file before its header; the others begin with theirs."""
    lines = text.splitlines()
    for number, line in enumerate(lines[:10]):
        header = set(next(csv.reader([line]), ()))
        rows = csv.DictReader(lines[number:])
        if {"SKU", "TermType", "PricePerUnit"} <= header:
            return _some(aws.offer_rows(rows), "SKU")
        if {"armSkuName", "retailPrice"} <= header:
            return _some(azure.retail_prices({"Items": list(rows)}), "armSkuName")
        if {"kind", "item", "region", "usd"} <= header:
            return _some(_own_rows(rows), "kind")
    raise InvalidPrices("the price file is of no known form", got=lines[0][:80] if lines else "", expected=_EXPECTED)


def _own_rows(rows: "csv.DictReader[str]") -> Iterator[Price]:
    """Columns kind, item, region, usd, and optionally unit and spot."""
    for number, row in enumerate(rows):
        spot = (row.get("spot") or "false").strip().lower()
        try:
            usd = float(row["usd"])
        except ValueError as broken:
            raise InvalidPrices(f"usd of row {number} is wrong", got=row["usd"], expected="a number") from broken
        kind: Any = row["kind"]
        yield Price(
            kind=kind,
            item=row["item"],
            region=row["region"],
            usd=usd,
            unit=row.get("unit") or "hour",
            spot={"true": True, "false": False}.get(spot, spot),  # type: ignore[arg-type]  # Price refuses a text
        )


def _some(prices: Iterator[Price], key: str) -> list[Price]:
    found = list(prices)
    if not found:
        raise InvalidPrices("the export holds no price that is used here", got=f"rows under {key}", expected="one row")
    return found
