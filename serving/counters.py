"""What a gateway counts of each backend, as gateway and agent both read it.

Counters only grow, from 0 at a gateway's boot; the difference of two snapshots of one boot is a window. What users
asked and what an agent replayed are counted apart: only users' requests are evidence of quality.
Latencies go to log-spaced buckets whose bounds grow by less than 5 %, so a percentile read from them is off
by less than 5 %, and two readings subtract exactly.
"""

import bisect
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, Self

from serving.errors import BadUpstream

_LOWEST_MS: Final = 0.1
_HIGHEST_MS: Final = 120_000.0
_GROWTH: Final = 1.049


@cache
def latency_bounds_ms() -> tuple[float, ...]:
    """Upper bounds from 0.1 ms to 2 min, each less than 5 % above the one before."""
    steps = math.ceil(math.log(_HIGHEST_MS / _LOWEST_MS, _GROWTH))
    return tuple(float(f"{_LOWEST_MS * _GROWTH**step:.5g}") for step in range(steps + 1))


def percentile_ms(bounds_ms: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The latency that `share` (0 to 1) of the answers did not exceed, within 5 %; None without answers.

    The geometric middle of the bucket that holds it; answers above the last bound count as the last bound.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = max(1, math.ceil(share * total))
    index = bisect.bisect_left(list(itertools.accumulate(counts)), rank)
    if index == 0:
        return bounds_ms[0]
    if index == len(bounds_ms):
        return bounds_ms[-1]
    return math.sqrt(bounds_ms[index - 1] * bounds_ms[index])


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """How attempts on one backend ended, and how long its answers took."""

    answered: int = 0
    """A whole answer, as its API has it."""
    refused: int = 0
    """The user's fault: 400, 413, 422."""
    failed: int = 0
    """The server's fault: cut off, 5xx, another 4xx, an answer that its API does not allow."""
    overloaded: int = 0
    """429 or 503."""
    late: int = 0
    """No answer within the bound."""
    abandoned: int = 0
    """The client left before an answer, or before a stream's first token."""
    unknown: int = 0
    """None of these: the gateway stopped, or a fault of its own."""
    latencies: tuple[int, ...] = ()
    """Answers per latency bucket, one more than there are bounds: the last bucket is open-ended."""

    @property
    def finished(self) -> int:
        return sum(_endings(self))

    @property
    def faults(self) -> int:
        """Endings that speak against the version: all but an answer and a refusal."""
        return self.finished - self.answered - self.refused

    def since(self, start: "Outcomes") -> "Outcomes":
        """What was added after `start`, a reading of the same boot."""
        earlier = start.latencies or (0,) * len(self.latencies)
        added = {name: getattr(self, name) - getattr(start, name) for name in ENDINGS}
        return Outcomes(
            **added, latencies=tuple(itertools.starmap(operator.sub, zip(self.latencies, earlier, strict=True)))
        )

    def to_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in ENDINGS}, "latencies": list(self.latencies)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError; fields of later versions are ignored."""
        counted = {name: int(raw[name]) for name in ENDINGS}
        return cls(**counted, latencies=tuple(map(int, raw["latencies"])))


ENDINGS: Final = tuple(entry.name for entry in fields(Outcomes) if entry.name != "latencies")
"""The names under which an attempt may end; there is no other."""
_endings: Final = operator.attrgetter(*ENDINGS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """One backend's counters. A request of several rows is one sample: its value is the share of its rows."""

    users: Outcomes = field(default_factory=Outcomes)
    synthetic: Outcomes = field(default_factory=Outcomes)
    """What an agent replayed."""
    in_flight: int = 0
    """Users' requests under way; no counter."""
    overdue: int = 0
    """Of these, the ones that take longer than the bound allows: evidence against the version already."""
    compared: int = 0
    """Requests that the mirror's backend answered too."""
    agreed: float = 0.0
    """Sum over them of the share of rows with an equal answer."""
    labelled: int = 0
    """Requests whose truth came in by feedback."""
    correct: float = 0.0
    pairs: int = 0
    """Labelled requests that both the live version and this one answered."""
    won: float = 0.0
    """Sum over pairs of the share of rows that this version had right beyond the live one's."""
    lost: float = 0.0
    """The same the other way round."""
    bounds_ms: tuple[float, ...] = ()

    @property
    def requests(self) -> int:
        """Users' requests that have an outcome: those of a server that hangs are no evidence yet."""
        return self.users.finished

    def since(self, start: "Counters") -> "Counters":
        """What was added after `start`, a reading of the same boot; what is under way is no counter and stays."""
        sums = {name: getattr(self, name) - getattr(start, name) for name in _SUMS}
        return Counters(
            users=self.users.since(start.users),
            synthetic=self.synthetic.since(start.synthetic),
            in_flight=self.in_flight,
            overdue=self.overdue,
            bounds_ms=self.bounds_ms,
            **sums,
        )

    def percentile_ms(self, share: float) -> float | None:
        """Of users' answers."""
        return percentile_ms(self.bounds_ms, self.users.latencies, share)

    def to_json(self) -> dict[str, Any]:
        """Without `bounds_ms`, which a snapshot has once."""
        return {
            "users": self.users.to_json(),
            "synthetic": self.synthetic.to_json(),
            "in_flight": self.in_flight,
            "overdue": self.overdue,
            **{name: getattr(self, name) for name in _SUMS},
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], bounds_ms: tuple[float, ...]) -> Self:
        """Raises KeyError, TypeError or ValueError; fields of later versions are ignored."""
        users, synthetic = Outcomes.from_json(raw["users"]), Outcomes.from_json(raw["synthetic"])
        for outcomes in (users, synthetic):
            if outcomes.latencies and len(outcomes.latencies) != len(bounds_ms) + 1:
                raise ValueError(f"{len(outcomes.latencies)} latency counts for {len(bounds_ms)} bounds")
        sums: dict[str, Any] = {name: (int if name in _WHOLE else float)(raw[name]) for name in _SUMS}
        return cls(
            users=users,
            synthetic=synthetic,
            in_flight=int(raw["in_flight"]),
            overdue=int(raw["overdue"]),
            bounds_ms=bounds_ms,
            **sums,
        )


_WHOLE: Final = ("compared", "labelled", "pairs")
_SUMS: Final = (*_WHOLE, "agreed", "correct", "won", "lost")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All backends of one model at one moment."""

    boot_id: str
    bounds_ms: tuple[float, ...] = ()
    backends: dict[str, Counters] = field(default_factory=dict)

    def of(self, backend: str) -> Counters:
        return self.backends.get(backend, Counters(bounds_ms=self.bounds_ms))

    def since(self, start: "Snapshot | None") -> "Snapshot":
        """The window from `start` to here; all of it when the gateway was booted in between."""
        if start is None or start.boot_id != self.boot_id:
            return self
        windows = {
            name: now.since(start.backends[name]) if name in start.backends else now
            for name, now in self.backends.items()
        }
        return Snapshot(boot_id=self.boot_id, bounds_ms=self.bounds_ms, backends=windows)

    def to_json(self) -> dict[str, Any]:
        return {
            "boot_id": self.boot_id,
            "bounds_ms": list(self.bounds_ms),
            "backends": {name: counters.to_json() for name, counters in self.backends.items()},
        }


def parse_snapshot(raw: Mapping[str, Any]) -> Snapshot:
    """Read the stats that a gateway answered; raises BadUpstream."""
    try:
        bounds_ms = tuple(map(float, raw["bounds_ms"]))
        backends = {name: Counters.from_json(counters, bounds_ms) for name, counters in raw["backends"].items()}
        return Snapshot(boot_id=str(raw["boot_id"]), bounds_ms=bounds_ms, backends=backends)
    except (KeyError, TypeError, ValueError, AttributeError) as broken:
        raise BadUpstream("gateway's stats cannot be read", got=repr(broken), expected="see docs/api.md") from broken
