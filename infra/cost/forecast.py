"""Where spending goes: a straight trend through its days, with the interval in which the coming days will lie.

Least squares, with a pattern of the week once four of them are known. The interval is that of a single day to come, not
of the mean: it says when a day is out of the ordinary. A change of prices or of fleets is not in the past, so not here.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from infra.cost.errors import TooFewDays
from serving.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_DAYS: Final = 7
_DAYS_FOR_WEEKS: Final = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Day:
    day: date
    usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastDay:
    day: date
    usd: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    days: tuple[ForecastDay, ...]
    confidence: float
    weekly: bool
    """Whether the days of the week were told apart."""


def forecast(history: Sequence[Day], days: int, *, confidence: float = 0.9) -> Forecast:
    """The `days` after the last one known. Days may be missing; one that is there twice is an error."""
    known = sorted(history, key=lambda item: item.day)
    _check(known, days, confidence)
    import numpy as np
    from scipy.stats import t as student  # type: ignore[import-untyped]  # it ships no types

    weekly = len(known) >= _DAYS_FOR_WEEKS
    start, last = known[0].day, known[-1].day
    design = _design([item.day for item in known], start, weekly)
    seen = np.array([item.usd for item in known])
    factors, *_ = np.linalg.lstsq(design, seen, rcond=None)
    rest = seen - design @ factors
    freedom = len(known) - design.shape[1]
    variance = float(rest @ rest) / freedom
    coming = [last + timedelta(days=number + 1) for number in range(days)]
    ahead = _design(coming, start, weekly)
    inverse = np.linalg.pinv(design.T @ design)
    spread = np.sqrt(variance * (1 + np.einsum("ij,jk,ik->i", ahead, inverse, ahead)))
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * spread
    found = zip(coming, ahead @ factors, reach, strict=True)
    return Forecast(
        days=tuple(ForecastDay(day=day, usd=float(y), low=float(y - r), high=float(y + r)) for day, y, r in found),
        confidence=confidence,
        weekly=weekly,
    )


def _check(known: Sequence[Day], days: int, confidence: float) -> None:
    if days < 1 or not 0 < confidence < 1:
        raise InvalidInput("the forecast is wrong", got=(days, confidence), expected="days >= 1, 0 < confidence < 1")
    if len(known) < FEWEST_DAYS:
        raise TooFewDays("a forecast needs more history", got=f"{len(known)} days", expected=f">= {FEWEST_DAYS}")
    twice = [one.day for one, other in itertools.pairwise(known) if one.day == other.day]
    if twice:
        raise InvalidInput("a day is there twice", got=twice[0], expected="one figure a day")


def _design(days: Sequence[date], start: date, weekly: bool) -> "Floats":
    """Columns: one, days since the start, and with `weekly` one for each day of the week but the first."""
    import numpy as np

    rows = [
        [
            1.0,
            float((day - start).days),
            *([float(day.weekday() == number) for number in range(1, 7)] if weekly else []),
        ]
        for day in days
    ]
    return np.array(rows)
