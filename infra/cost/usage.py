"""Asks Prometheus how clusters were used and what that cost: over HTTP, by the rules of infra/observability."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from infra.cost.errors import UsageUnavailable
from infra.cost.forecast import Day
from infra.cost.rightsizing import GroupUse
from serving.errors import InvalidInput

UTILISATION: Final = "flightpath:gpu_utilisation:ratio_avg1d"
NODES: Final = "avg_over_time(flightpath:nodes:count[1d])"
SPEND: Final = "avg_over_time(flightpath:spend:usd_per_month[1d])"
_STEP: Final = timedelta(days=1)

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prometheus:
    """One server."""

    url: str
    timeout: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        # urllib would open a file too.
        if not self.url.startswith(("http://", "https://")):
            raise InvalidInput("the URL of Prometheus is wrong", got=self.url, expected="http://… or https://…")

    def daily(self, expression: str, *, days: int, now: datetime | None = None) -> dict[Labels, dict[date, float]]:
        """A figure for each of the last days, by the series' labels. A day without one is left out."""
        end = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
        start = end - (days - 1) * _STEP
        asked = {"query": expression, "start": start.timestamp(), "end": end.timestamp(), "step": "1d"}
        series = self._ask("/api/v1/query_range", asked)
        return {frozenset(item["metric"].items()): _days(item["values"]) for item in series}

    def _ask(self, path: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        address = f"{self.url.rstrip('/')}{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(address, timeout=self.timeout.total_seconds()) as answer:
                body = json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            told = refused.read().decode(errors="replace")[:200]
            raise UsageUnavailable(f"Prometheus at {self.url} refused", got=f"{refused.code} {told}") from refused
        except (OSError, ValueError) as broken:
            raise UsageUnavailable(f"Prometheus at {self.url} did not answer", got=broken) from broken
        if not isinstance(body, dict) or body.get("status") != "success":
            raise UsageUnavailable(f"{self.url} is no Prometheus", got=body, expected="status success")
        result: list[dict[str, Any]] = body["data"]["result"]
        return result


def groups_in_use(prometheus: Prometheus, *, days: int = 14, now: datetime | None = None) -> tuple[GroupUse, ...]:
    """Groups with GPUs. Days for which a group has no node or no figure are left out of it."""
    used = {
        _label(labels, "node_group"): found
        for labels, found in prometheus.daily(UTILISATION, days=days, now=now).items()
    }
    nodes = prometheus.daily(NODES, days=days, now=now)
    found = []
    for labels, counts in sorted(nodes.items(), key=lambda item: sorted(item[0])):
        group = _label(labels, "node_group")
        common = sorted(counts.keys() & used.get(group, {}).keys())
        if common:
            found.append(
                GroupUse(
                    node_group=group,
                    instance_type=_label(labels, "instance_type"),
                    spot=_label(labels, "capacity_type") == "spot",
                    nodes=tuple(counts[day] for day in common),
                    utilisation=tuple(used[group][day] for day in common),
                )
            )
    return tuple(found)


def spend_history(prometheus: Prometheus, *, days: int = 60, now: datetime | None = None) -> tuple[Day, ...]:
    """USD a month as of each day, over everything that the server sees."""
    total: dict[date, float] = defaultdict(float)
    for found in prometheus.daily(SPEND, days=days, now=now).values():
        for day, usd in found.items():
            total[day] += usd
    return tuple(Day(day=day, usd=usd) for day, usd in sorted(total.items()))


def _days(values: list[list[Any]]) -> dict[date, float]:
    read = ((datetime.fromtimestamp(float(at), UTC).date(), float(value)) for at, value in values)
    return {day: value for day, value in read if math.isfinite(value)}


def _label(labels: Labels, name: str) -> str:
    return dict(labels).get(name, "")
