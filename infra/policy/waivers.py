"""Waivers: a rule that a resource may break, with a reason and an end. One a year old is no exception any more."""

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from infra.policy.errors import InvalidWaiver
from infra.policy.findings import Breach
from infra.policy.settings import read_yaml

LONGEST: Final = timedelta(days=366)
_SHORTEST_REASON: Final = 15
_FIELDS: Final = ("rule", "resource", "reason", "approved_by", "granted", "expires")


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    rule: str
    resource: str
    """Address; `*` stands for any text, so that `module.x.*` is everything in a module."""
    reason: str
    approved_by: str
    granted: date
    expires: date
    """The last day on which it holds."""

    def __post_init__(self) -> None:
        where = f"of the waiver of {self.rule} for {self.resource}"
        if len(self.reason.strip()) < _SHORTEST_REASON:
            raise InvalidWaiver(f"the reason {where} is too short", got=self.reason, expected="a sentence")
        if not self.approved_by.strip():
            raise InvalidWaiver(f"approved_by {where} is empty", got="nothing", expected="who granted it")
        if self.resource.strip("*?.") == "":
            raise InvalidWaiver(f"the resource {where} is everything", got=self.resource, expected="an address")
        if not self.granted <= self.expires <= self.granted + LONGEST:
            raise InvalidWaiver(
                f"the end {where} is wrong", got=self.expires, expected=f"{LONGEST.days} days from {self.granted}"
            )

    def covers(self, breach: Breach) -> bool:
        # An index such as ["a"] is a set of letters to fnmatch: it is escaped.
        pattern = self.resource.replace("[", "[[]")
        return breach.rule == self.rule and fnmatch.fnmatchcase(breach.resource, pattern)

    def holds_on(self, day: date) -> bool:
        return self.granted <= day <= self.expires


def load_waivers(path: Path, rules: Collection[str]) -> tuple[Waiver, ...]:
    """`rules`: the names that there are; a waiver of another would wait for ever."""
    rows = read_yaml(path).get("waivers")
    if not isinstance(rows, list):
        raise InvalidWaiver(f"{path} holds no waivers", got=rows, expected="a list under `waivers`")
    return tuple(_read(row, number, rules) for number, row in enumerate(rows))


def _read(row: Any, number: int, rules: Collection[str]) -> Waiver:
    if not isinstance(row, dict) or set(row) != set(_FIELDS):
        got = sorted(row) if isinstance(row, dict) else row
        raise InvalidWaiver(f"waiver {number} is wrong", got=got, expected=", ".join(_FIELDS))
    if row["rule"] not in rules:
        raise InvalidWaiver(f"waiver {number} is of an unknown rule", got=row["rule"], expected=", ".join(rules))
    for name in ("granted", "expires"):
        if type(row[name]) is not date:
            raise InvalidWaiver(f"{name} of waiver {number} is no day", got=row[name], expected="YYYY-MM-DD")
    return Waiver(
        rule=row["rule"],
        resource=str(row["resource"]),
        reason=str(row["reason"]),
        approved_by=str(row["approved_by"]),
        granted=row["granted"],
        expires=row["expires"],
    )
