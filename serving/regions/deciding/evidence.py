"""What a promotion has counted of candidate and live version so far: window by window, over steps and regions.

A window is one canary step in one region; both versions answered in it side by side, so nothing that changed over
time counts for one and against the other. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from serving.counters import Counters, Outcomes, latency_bounds_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores of mirrored completions, each 0 to 1: how well the candidate does beside the live version."""

    count: int = 0
    total: float = 0.0

    def plus(self, scores: Iterable[float]) -> "Scores":
        added = list(scores)
        return Scores(count=self.count + len(added), total=self.total + sum(added))


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One step's counts of both versions."""

    region: str
    percent: int
    candidate: Counters
    live: Counters | None
    """None where nothing was live."""
    scores: Scores = field(default_factory=Scores)
    replays_count: bool = False
    """Whether replayed requests count as users': the policy says so, or nothing is live whose users could be asked."""
    recorded: bool = False
    """Whether `live` was counted earlier, not side by side: the step at 100 %, and the watch after it."""

    @property
    def counted(self) -> "Window":
        """With replayed requests among the users' where they count."""
        if not self.replays_count:
            return self
        live = None if self.live is None else _with_synthetic(self.live)
        return replace(self, candidate=_with_synthetic(self.candidate), live=live)

    @property
    def ended(self) -> "Window":
        """Without the requests that hang: they are the next window's, until they end in one."""
        live = None if self.live is None else replace(self.live, overdue=0)
        return replace(self, candidate=replace(self.candidate, overdue=0), live=live)

    def to_json(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "percent": self.percent,
            "candidate": _sparse(self.candidate),
            "live": None if self.live is None else _sparse(self.live),
            "scores": {"count": self.scores.count, "total": self.scores.total},
            "replays_count": self.replays_count,
            "recorded": self.recorded,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError."""
        return cls(
            region=str(raw["region"]),
            percent=int(raw["percent"]),
            candidate=_dense(raw["candidate"]),
            live=None if raw["live"] is None else _dense(raw["live"]),
            scores=Scores(count=int(raw["scores"]["count"]), total=float(raw["scores"]["total"])),
            replays_count=bool(raw["replays_count"]),
            recorded=bool(raw["recorded"]),
        )


def has_outcome(counters: Counters) -> int:
    """Requests of users that say something: finished ones, and those in flight beyond their bound."""
    return counters.users.finished + counters.overdue


def of_region(windows: Sequence[Window], region: str) -> list[Window]:
    return [window for window in windows if window.region == region]


def side_by_side(windows: Sequence[Window]) -> list[Window]:
    return [window for window in windows if not window.recorded and window.live is not None]


def added(first: Counters, second: Counters) -> Counters:
    """Both counts together; they must have the same latency buckets, or one of them no latencies."""
    return Counters(
        users=_sum(first.users, second.users),
        synthetic=_sum(first.synthetic, second.synthetic),
        in_flight=second.in_flight,
        overdue=second.overdue,
        compared=first.compared + second.compared,
        agreed=first.agreed + second.agreed,
        labelled=first.labelled + second.labelled,
        correct=first.correct + second.correct,
        pairs=first.pairs + second.pairs,
        won=first.won + second.won,
        lost=first.lost + second.lost,
        bounds_ms=second.bounds_ms or first.bounds_ms,
    )


def summed(latencies: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Answers per bucket over all; one without buckets has no answers."""
    timed = [counts for counts in latencies if counts]
    return timed[0] if len(timed) == 1 else tuple(map(sum, zip(*timed, strict=True)))


def _with_synthetic(counters: Counters) -> Counters:
    return replace(counters, users=_sum(counters.users, counters.synthetic), synthetic=Outcomes())


def _sum(first: Outcomes, second: Outcomes) -> Outcomes:
    return Outcomes(
        answered=first.answered + second.answered,
        refused=first.refused + second.refused,
        failed=first.failed + second.failed,
        overloaded=first.overloaded + second.overloaded,
        late=first.late + second.late,
        abandoned=first.abandoned + second.abandoned,
        unknown=first.unknown + second.unknown,
        latencies=summed([first.latencies, second.latencies]),
    )


def _sparse(counters: Counters) -> dict[str, Any]:
    """Counters as JSON with the used latency buckets alone: most of the 300 are empty, and peers ask often."""
    document = counters.to_json()
    for side in ("users", "synthetic"):
        counts = document[side]["latencies"]
        used = {str(index): count for index, count in enumerate(counts) if count}
        document[side] = {**document[side], "latencies": {"buckets": len(counts), "used": used}}
    return document


def _dense(raw: Mapping[str, Any]) -> Counters:
    """Latencies in other buckets than today's (an older agent's) cannot be added to ours and are left out."""
    bounds_ms, document = latency_bounds_ms(), dict(raw)
    for side in ("users", "synthetic"):
        sparse, counts = raw[side]["latencies"], [0] * (len(bounds_ms) + 1)
        if sparse["buckets"] == len(counts):
            for index, count in sparse["used"].items():
                counts[int(index)] = int(count)
        document[side] = {**raw[side], "latencies": counts}
    return Counters.from_json(document, bounds_ms)
