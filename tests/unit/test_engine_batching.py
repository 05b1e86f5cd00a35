"""Callers that share a run of the model notice nothing of each other."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serving.bundle import TensorSpec
from serving.engines.batching import BatchLimits, MicroBatcher
from serving.engines.engine import Tensor, Tensors
from serving.errors import InvalidInput, PermanentError, RetryableError


class DoublingEngine:
    """Answers 2 * x and remembers the rows of each run. Refuses 13; waits while `gate` is closed."""

    platform = "test"

    def __init__(self, *, batch_dimension: int = -1) -> None:
        spec = [batch_dimension, -1]
        self.inputs: Sequence[TensorSpec] = [TensorSpec(name="x", datatype="FP32", shape=spec)]
        self.outputs: Sequence[TensorSpec] = [TensorSpec(name="y", datatype="FP32", shape=spec)]
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        self.started.set()
        assert self.gate.wait(timeout=10)
        x = inputs["x"]
        self.runs.append(len(x))
        if (x == 13).any():
            raise InvalidInput("13 is refused")
        if (x == 99).any():
            raise KeyError("a bug of the runtime")
        return {"y": 2 * x}

    def close(self) -> None:
        pass


def rows(value: float, count: int = 1, width: int = 2) -> dict[str, Tensor]:
    return {"x": np.full((count, width), value, dtype=np.float32)}


async def occupy(engine: DoublingEngine, batcher: MicroBatcher) -> "asyncio.Task[dict[str, Tensor]]":
    """Hold the worker thread in a run, so that what follows has to queue."""
    engine.gate.clear()
    first = asyncio.create_task(batcher.submit(rows(0), 1))
    await asyncio.to_thread(engine.started.wait, 10)
    return first


async def test_requests_that_wait_together_run_together_and_get_their_own_rows() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits(max_rows=8)) as batcher:
        first = await occupy(engine, batcher)
        others = [asyncio.create_task(batcher.submit(rows(n, count=n), n)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        engine.gate.set()
        await first
        answers = await asyncio.gather(*others)
    assert engine.runs == [1, 6]
    for n, answer in zip((1, 2, 3), answers, strict=True):
        np.testing.assert_array_equal(answer["y"], np.full((n, 2), 2 * n))


async def test_a_batch_never_exceeds_its_rows_but_a_larger_request_runs_by_itself() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits(max_rows=4)) as batcher:
        first = await occupy(engine, batcher)
        others = [asyncio.create_task(batcher.submit(rows(1, count=n), n)) for n in (3, 2, 9, 1)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert engine.runs == [1, 3, 2, 9, 1]


async def test_requests_of_different_shapes_do_not_share_a_run() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits()) as batcher:
        first = await occupy(engine, batcher)
        others = [asyncio.create_task(batcher.submit(rows(1, width=w), 1)) for w in (2, 2, 3)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert engine.runs == [1, 2, 1]


async def test_a_model_with_a_fixed_batch_dimension_runs_each_request_alone() -> None:
    engine = DoublingEngine(batch_dimension=1)
    async with MicroBatcher(engine, BatchLimits()) as batcher:
        first = await occupy(engine, batcher)
        others = [asyncio.create_task(batcher.submit(rows(1), 1)) for _ in range(3)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert engine.runs == [1, 1, 1, 1]


async def test_a_full_queue_refuses_at_once() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits(max_queued=2)) as batcher:
        first = await occupy(engine, batcher)
        waiting = [asyncio.create_task(batcher.submit(rows(1), 1)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RetryableError, match="overloaded, got 2 waiting, expected < 2"):
            await batcher.submit(rows(1), 1)
        engine.gate.set()
        await asyncio.gather(first, *waiting)


async def test_a_caller_that_gives_up_does_not_break_the_batch() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits()) as batcher:
        first = await occupy(engine, batcher)
        leaving = asyncio.create_task(batcher.submit(rows(1), 1))
        staying = asyncio.create_task(batcher.submit(rows(2), 1))
        await asyncio.sleep(0)
        leaving.cancel()
        first.cancel()
        engine.gate.set()
        np.testing.assert_array_equal((await staying)["y"], [[4, 4]])
    assert engine.runs == [1, 1]


async def test_only_the_request_that_breaks_the_model_fails() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits()) as batcher:
        first = await occupy(engine, batcher)
        others = [asyncio.create_task(batcher.submit(rows(n), 1)) for n in (1, 13, 2)]
        await asyncio.sleep(0)
        engine.gate.set()
        await first
        good, bad, also_good = await asyncio.gather(*others, return_exceptions=True)
    assert isinstance(bad, InvalidInput)
    assert not isinstance(good, BaseException)
    assert not isinstance(also_good, BaseException)
    np.testing.assert_array_equal(good["y"], [[2, 2]])
    np.testing.assert_array_equal(also_good["y"], [[4, 4]])


async def test_a_bug_in_the_runtime_fails_one_request_and_not_the_server() -> None:
    engine = DoublingEngine()
    async with MicroBatcher(engine, BatchLimits()) as batcher:
        with pytest.raises(PermanentError, match="model failed"):
            await batcher.submit(rows(99), 1)
        np.testing.assert_array_equal((await batcher.submit(rows(1), 1))["y"], [[2, 2]])


async def test_batch_sizes_are_reported() -> None:
    seen: list[int] = []
    async with MicroBatcher(DoublingEngine(), BatchLimits(), on_batch=seen.append) as batcher:
        await batcher.submit(rows(1, count=5), 5)
    assert seen == [5]


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="batch limits"):
        BatchLimits(max_rows=0)
