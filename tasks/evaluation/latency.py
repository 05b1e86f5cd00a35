"""How long one call takes, for several variants of a model side by side.

The variants take turns, so that whatever else the machine does falls on all of them alike; the
figures are medians and 95th percentiles of single calls, warm-up left out. They compare variants on
one machine; they are no promise for another.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from serving.errors import InvalidInput

Clock = Callable[[], float]
_WARMUP_CALLS: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Of one variant at one batch size."""

    variant: str
    batch: int
    p50_ms: float
    p95_ms: float
    calls: int


def measure_latency(
    variants: Mapping[str, Callable[[int], object]],
    *,
    batches: Sequence[int],
    calls: int = 200,
    clock: Clock = time.perf_counter,
) -> list[Latency]:
    """Time each variant's call at each batch size, in turns.

    Args:
        variants: by name, a function that runs one batch of the given size.
        calls: timed calls per variant and batch size.
        clock: seconds.
    """
    if calls < 1 or not variants or not batches:
        raise InvalidInput("nothing to measure", got=(len(variants), list(batches), calls), expected="all >= 1")
    return [latency for batch in batches for latency in _measure_batch(variants, batch, calls, clock)]


def _measure_batch(
    variants: Mapping[str, Callable[[int], object]], batch: int, calls: int, clock: Clock
) -> list[Latency]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(calls + _WARMUP_CALLS):
        for name, call in variants.items():
            started = clock()
            call(batch)
            taken = clock() - started
            if turn >= _WARMUP_CALLS:
                seconds[name].append(taken)
    return [
        Latency(
            variant=name,
            batch=batch,
            p50_ms=float(np.percentile(taken, 50)) * 1000,
            p95_ms=float(np.percentile(taken, 95)) * 1000,
            calls=calls,
        )
        for name, taken in seconds.items()
    ]
