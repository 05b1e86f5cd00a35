"""Timing of variants, under a clock that the test moves."""

from collections.abc import Callable

import pytest

from serving.errors import InvalidInput
from tasks.evaluation.latency import measure_latency


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: Callable[[int], float], order: list[str], name: str) -> Callable[[int], None]:
        def call(batch: int) -> None:
            order.append(name)
            self.now += seconds(batch)

        return call


def test_each_variant_gets_its_own_time_per_batch_size() -> None:
    clock, order = Clock(), list[str]()
    variants = {
        "fp32": clock.taking(lambda batch: 0.002 * batch, order, "fp32"),
        "int8": clock.taking(lambda batch: 0.001 * batch, order, "int8"),
    }
    latencies = measure_latency(variants, batches=[1, 4], calls=10, clock=clock)
    measured = {(latency.variant, latency.batch): latency.p50_ms for latency in latencies}
    expected = {("fp32", 1): 2.0, ("int8", 1): 1.0, ("fp32", 4): 8.0, ("int8", 4): 4.0}
    assert measured == {key: pytest.approx(value) for key, value in expected.items()}


def test_variants_take_turns() -> None:
    clock, order = Clock(), list[str]()
    variants = {name: clock.taking(lambda batch: 0.001, order, name) for name in ("a", "b")}
    measure_latency(variants, batches=[1], calls=3, clock=clock)
    assert order == ["a", "b"] * (len(order) // 2)


def test_the_95th_percentile_sees_slow_calls_and_the_median_does_not() -> None:
    clock, calls = Clock(), list[str]()
    variants = {"a": clock.taking(lambda batch: 0.1 if len(calls) % 10 == 0 else 0.001, calls, "a")}
    (latency,) = measure_latency(variants, batches=[1], calls=100, clock=clock)
    assert latency.p50_ms == pytest.approx(1.0)
    assert latency.p95_ms == pytest.approx(100.0)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nothing to measure"):
        measure_latency({}, batches=[1])
