"""Reads what workers report. It comes from the jobs' own code: nothing in it is taken on trust."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flightpath_operator.training.state import SkippedCheckpoint

_MAX_SKIPPED: Final = 20
_MAX_NAME: Final = 253
_MAX_REASON: Final = 1024
_MAX_STEP: Final = 2**53
"""Beyond it JSON numbers lose their last digit."""
_LATEST: Final = 253_402_300_799.0
"""Last second of the year 9999: later ones are no RFC 3339."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One progress object of the contract; what it left out, or got wrong, is None."""

    received_at: float
    """By the operator's clock."""
    time: float
    """By the worker's clock; the operator's where it told none."""
    step: int
    attempt: int | None = None
    """The attempt whose token it bore, where the server tells."""
    total_steps: int | None = None
    loss: float | None = None
    samples_per_s: float | None = None
    checkpoint_step: int | None = None
    resumed_from_step: int | None = None
    skipped: tuple[SkippedCheckpoint, ...] = ()
    rank_seconds: Mapping[int, float] = field(default_factory=dict)
    """Own work per step of each rank, without waiting for the others."""


def read_report(told: Mapping[str, Any] | None) -> Report | None:
    """The report; None where there is none, or where it lacks its step."""
    if not told:
        return None
    step, received_at = _count(told.get("step")), _time(told.get("received_at"))
    if step is None or received_at is None:
        return None
    time, throughput = _time(told.get("time")), _number(told.get("samples_per_s"))
    return Report(
        received_at=received_at,
        time=received_at if time is None else time,
        step=step,
        attempt=_count(told.get("attempt")),
        total_steps=_count(told.get("total_steps")),
        loss=_number(told.get("loss")),
        samples_per_s=throughput if throughput is not None and throughput >= 0 else None,
        checkpoint_step=_count(told.get("checkpoint_step")),
        resumed_from_step=_count(told.get("resumed_from_step")),
        skipped=_skipped(told.get("skipped_checkpoints")),
        rank_seconds=_rank_seconds(told.get("rank_seconds")),
    )


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and 0 <= number <= _MAX_STEP else None


def _number(value: Any) -> float | None:
    """A finite number: a diverged loss is NaN, which JSON cannot carry to the API server."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None


def _time(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 < number <= _LATEST else None


def _skipped(value: Any) -> tuple[SkippedCheckpoint, ...]:
    if not isinstance(value, list | tuple):
        return ()
    named = (item for item in value if isinstance(item, Mapping) and item.get("name"))
    return tuple(
        SkippedCheckpoint(name=str(item["name"])[:_MAX_NAME], reason=str(item.get("reason") or "")[:_MAX_REASON])
        for item, _ in zip(named, range(_MAX_SKIPPED), strict=False)
    )


def _rank_seconds(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        return {}
    numbers = ((rank, _number(seconds)) for rank, seconds in value.items())
    return {int(rank): seconds for rank, seconds in numbers if str(rank).isdecimal() and seconds and seconds > 0}
