"""Prices, from a file that the user supplies: the one place that everything about cost reads them from.

Prices differ by contract and change by the week, so none is in the code. A book is a list of rows; how a cloud's own
export becomes rows is `infra.cost.exports`. A price that is not in the book is an error, never zero.

    prices = load_prices(Path("examples/infra/prices.json"))
    prices.hourly_usd("p4d.24xlarge", "us-east-1", spot=True)
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, get_args

from infra.cost import exports
from infra.cost.errors import InvalidPrices, UnknownPrice
from infra.cost.rows import Kind, Price

HOURS_A_MONTH: Final = 730.0
"""365 days of 24 hours over 12: what the clouds' own calculators use."""
ANY_REGION: Final = "*"

__all__ = ["ANY_REGION", "HOURS_A_MONTH", "Kind", "Price", "PriceBook", "load_prices"]

Key = tuple[Kind, str, str, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceBook:
    """Prices by kind, item, region and whether they are spot."""

    prices: Mapping[Key, Price]
    day: date
    """The day of the prices: every table made from them shows it."""
    note: str = ""
    """Where they are from. An example says so here."""

    @classmethod
    def of(cls, prices: Iterable[Price], *, day: date, note: str = "") -> Self:
        """Two rows for one thing must agree: which of two prices holds is not for us to pick."""
        found: dict[Key, Price] = {}
        for price in prices:
            known = found.setdefault(_key(price), price)
            if not math.isclose(known.usd, price.usd):
                raise InvalidPrices(f"two prices for {price.describe()}", got=price.usd, expected=known.usd)
        return cls(prices=MappingProxyType(found), day=day, note=note)

    def hourly_usd(self, instance_type: str, region: str, spot: bool = False) -> float:
        """USD an hour for one running instance."""
        return self.find("instance", instance_type, region, spot=spot).usd

    def transfer_usd(self, source: str, target: str) -> float:
        """USD for one GB from region to region (or to `internet`), the source's general price where no pair is told."""
        for item in (target, ANY_REGION):
            price = self.prices.get(("transfer", item, source, False))
            if price is not None:
                return price.usd
        raise UnknownPrice(f"no price for data transfer from {source}", got=target, expected=self._known("transfer"))

    def find(self, kind: Kind, item: str, region: str, *, spot: bool = False) -> Price:
        for place in (region, ANY_REGION):
            price = self.prices.get((kind, item, place, spot))
            if price is not None:
                return price
        what = f"no {'spot ' if spot else ''}price for {kind} {item}"
        places = sorted({key[2] for key in self.prices if key[:2] == (kind, item) and key[3] == spot})
        raise UnknownPrice(what, got=f"region {region}", expected=f"one of {', '.join(places) or self._known(kind)}")

    def instances(self) -> tuple[Price, ...]:
        """On-demand and spot prices of instances, in a stable order: what a dashboard's rules are made from."""
        found = (price for price in self.prices.values() if price.kind == "instance")
        return tuple(sorted(found, key=lambda price: (price.region, price.item, price.spot)))

    def _known(self, kind: Kind) -> str:
        items = sorted({f"{key[1]} in {key[2]}" for key in self.prices if key[0] == kind})
        return ", ".join(items[:5]) + (" and more" if len(items) > 5 else "") if items else f"a row of kind {kind}"


def load_prices(path: Path) -> PriceBook:
    """Our own JSON form, or an export of a cloud (`infra.cost.exports` tells them apart by their content)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as broken:
        raise InvalidPrices(f"the price file {path} cannot be read", got=broken, expected="UTF-8 text") from broken
    if not text.lstrip().startswith(("{", "[")):
        return PriceBook.of(exports.from_csv(text), day=_day_of_file(path))
    try:
        document = json.loads(text)
    except ValueError as broken:
        raise InvalidPrices(f"the price file {path} is no JSON", got=broken, expected="JSON or CSV") from broken
    if isinstance(document, dict) and "schema_version" in document:
        return _own_form(document, path)
    return PriceBook.of(exports.from_json(document), day=_day_of_file(path))


def _own_form(document: Mapping[str, Any], path: Path) -> PriceBook:
    if document["schema_version"] != 1:
        raise InvalidPrices("schema_version is not known", got=document["schema_version"], expected=1)
    if document.get("currency", "USD") != "USD":
        raise InvalidPrices("the currency is wrong", got=document["currency"], expected="USD")
    try:
        day = date.fromisoformat(document["date"])
    except (KeyError, TypeError, ValueError) as broken:
        raise InvalidPrices("the prices have no date", got=document.get("date"), expected="YYYY-MM-DD") from broken
    rows = document.get("prices")
    if not isinstance(rows, list) or not rows:
        raise InvalidPrices("there are no prices", got=rows, expected="a list under `prices`")
    prices = [_read_row(row, number) for number, row in enumerate(rows)]
    return PriceBook.of(prices, day=day, note=str(document.get("note", "")))


_FIELDS: Final = frozenset({"kind", "item", "region", "usd", "unit", "spot"})


def _read_row(row: Any, number: int) -> Price:
    where = f"price {number}"
    if not isinstance(row, dict):
        raise InvalidPrices(f"{where} is wrong", got=row, expected="an object")
    if unknown := sorted(row.keys() - _FIELDS):
        raise InvalidPrices(f"{where} has unknown fields", got=unknown, expected=sorted(_FIELDS))
    if missing := sorted({"kind", "item", "region", "usd"} - row.keys()):
        raise InvalidPrices(f"{where} lacks fields", got=sorted(row), expected=missing)
    if row["kind"] not in get_args(Kind):
        raise InvalidPrices(f"{where} is of an unknown kind", got=row["kind"], expected=", ".join(get_args(Kind)))
    return Price(**row)


def _key(price: Price) -> Key:
    return price.kind, price.item, price.region, price.spot


def _day_of_file(path: Path) -> date:
    """Exports tell the day of each price at most; the file's own is when they held."""
    return date.fromtimestamp(path.stat().st_mtime)
