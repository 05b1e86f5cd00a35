"""What a gateway counted between two moments, and the figures that follow from it.

A gateway's counters only grow, from 0 at its boot. The difference of two snapshots is a window; a
snapshot of another boot starts the window again at that boot. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.errors import BadUpstream


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """One backend's counters; the fields of docs/api.md."""

    requests: int = 0
    synthetic: int = 0
    errors: int = 0
    compared: int = 0
    agreed: int = 0
    labelled: int = 0
    correct: int = 0
    bounds_ms: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    """Answers per latency bucket, one more than `bounds_ms`: the last bucket is open-ended."""
    in_flight: int = 0

    @property
    def finished(self) -> int:
        """Requests that have an outcome: those of a server that hangs are no evidence yet."""
        return max(0, self.requests - self.in_flight)

    def since(self, start: "Counters") -> "Counters":
        """What was added after `start`, a snapshot of the same boot; `in_flight` is no counter and stays."""
        same_buckets = self.bounds_ms == start.bounds_ms
        return Counters(
            requests=self.requests - start.requests,
            synthetic=self.synthetic - start.synthetic,
            errors=self.errors - start.errors,
            compared=self.compared - start.compared,
            agreed=self.agreed - start.agreed,
            labelled=self.labelled - start.labelled,
            correct=self.correct - start.correct,
            bounds_ms=self.bounds_ms,
            counts=tuple(a - b for a, b in zip(self.counts, start.counts, strict=True))
            if same_buckets
            else self.counts,
            in_flight=self.in_flight,
        )

    def p95_ms(self) -> float | None:
        """Upper bound of the bucket that holds the 95th percentile; infinite in the open one, None without answers."""
        total = sum(self.counts)
        if total == 0:
            return None
        rank, seen = math.ceil(0.95 * total), 0
        for bound, count in zip((*self.bounds_ms, math.inf), self.counts, strict=True):
            seen += count
            if seen >= rank:
                return bound
        raise AssertionError("unreachable: the counts add up to their total")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All backends of one model at one moment."""

    boot_id: str
    backends: dict[str, Counters] = field(default_factory=dict)

    def of(self, backend: str) -> Counters:
        return self.backends.get(backend, Counters())

    def since(self, start: "Snapshot | None") -> "Snapshot":
        """The window from `start` to here; all of it when the gateway was booted in between."""
        if start is None or start.boot_id != self.boot_id:
            return self
        return Snapshot(
            boot_id=self.boot_id,
            backends={
                name: now.since(start.backends[name]) if name in start.backends else now
                for name, now in self.backends.items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "boot_id": self.boot_id,
            "backends": {
                name: {
                    "requests": c.requests,
                    "synthetic": c.synthetic,
                    "errors": c.errors,
                    "compared": c.compared,
                    "agreed": c.agreed,
                    "labelled": c.labelled,
                    "correct": c.correct,
                    "latency": {"bounds_ms": list(c.bounds_ms), "counts": list(c.counts)},
                    "in_flight": c.in_flight,
                }
                for name, c in self.backends.items()
            },
        }


def parse_snapshot(raw: Mapping[str, Any]) -> Snapshot:
    """Read the stats that a gateway answered; raises BadUpstream."""
    try:
        return Snapshot(
            boot_id=str(raw["boot_id"]),
            backends={name: _counters(counters) for name, counters in raw["backends"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as broken:
        raise BadUpstream("gateway's stats cannot be read", got=repr(broken), expected="boot_id, backends") from broken


def _counters(raw: Mapping[str, Any]) -> Counters:
    bounds, counts = tuple(map(float, raw["latency"]["bounds_ms"])), tuple(map(int, raw["latency"]["counts"]))
    if counts and len(counts) != len(bounds) + 1:
        raise ValueError(f"{len(counts)} latency counts for {len(bounds)} bounds")
    names = ("requests", "synthetic", "errors", "compared", "agreed", "labelled", "correct", "in_flight")
    return Counters(**{name: int(raw[name]) for name in names}, bounds_ms=bounds, counts=counts)
