"""Counters as a gateway would have them, made from a few figures."""

import bisect
from collections.abc import Sequence
from typing import Any

from serving.counters import Counters, Outcomes, latency_bounds_ms

BOUNDS_MS = latency_bounds_ms()


def buckets(latencies_ms: Sequence[float]) -> tuple[int, ...]:
    counts = [0] * (len(BOUNDS_MS) + 1)
    for latency_ms in latencies_ms:
        counts[bisect.bisect_left(BOUNDS_MS, latency_ms)] += 1
    return tuple(counts)


def outcomes(*, answered: int = 0, latency_ms: float = 10.0, spread: float = 0.2, **endings: int) -> Outcomes:
    """Answers whose latencies lie evenly within `spread` around `latency_ms`; and endings by name."""
    steps = [1 - spread + 2 * spread * (index + 0.5) / max(1, answered) for index in range(answered)]
    return Outcomes(answered=answered, latencies=buckets([latency_ms * step for step in steps]), **endings)


def counters(*, synthetic: Outcomes | None = None, in_flight: int = 0, overdue: int = 0, **users: Any) -> Counters:
    """Users' outcomes by name; sums such as `compared` and `labelled` too."""
    sums = {name: users.pop(name) for name in _SUMS if name in users}
    return Counters(
        users=outcomes(**users),
        synthetic=synthetic or Outcomes(latencies=buckets([])),
        in_flight=in_flight,
        overdue=overdue,
        bounds_ms=BOUNDS_MS,
        **sums,
    )


_SUMS = ("compared", "agreed", "labelled", "correct", "pairs", "won", "lost")
