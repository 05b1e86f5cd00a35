"""Gathers requests that arrive together into one run of the model.

Promises: a caller gets exactly its own rows; one that gives up harms nobody; one whose tensors make
the model fail fails alone; and a full queue answers at once instead of making everybody late.
Waiting for more costs a lone caller latency, so the batcher only waits when callers come in company.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from serving.engines.engine import Engine, Tensor, Tensors, can_batch
from serving.errors import FlightpathError, InvalidInput, PermanentError, RetryableError


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    max_rows: int = 32
    """Rows of one run. A single request with more runs by itself."""
    max_delay_s: float = 0.002
    """How long the first request of a batch waits for company."""
    max_queued: int = 256
    """Requests that may wait; the next one is answered 503."""

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.max_queued < 1 or self.max_delay_s < 0:
            raise InvalidInput(
                "batch limits are out of range", got=self, expected="max_rows, max_queued >= 1, delay >= 0"
            )


_BatchKey = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    inputs: Tensors
    rows: int
    key: _BatchKey
    """Names, types and shapes beyond the first dimension: what must be equal to share a run."""
    answer: "asyncio.Future[dict[str, Tensor]]" = field(compare=False)


class MicroBatcher:
    """Runs an engine in one worker thread. Use `async with`."""

    def __init__(
        self, engine: Engine, limits: BatchLimits, *, on_batch: Callable[[int], None] = lambda rows: None
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._on_batch = on_batch
        self._batchable = can_batch(engine)
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._in_company = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._runner: asyncio.Task[None] | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def __aenter__(self) -> "MicroBatcher":
        self._runner = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        for waiting in self._queue:
            waiting.answer.cancel()
        self._thread.shutdown(wait=True)

    async def submit(self, inputs: Tensors, rows: int) -> dict[str, Tensor]:
        """The outputs for these inputs; RetryableError (503) when the queue is full."""
        if len(self._queue) >= self._limits.max_queued:
            raise RetryableError(
                "model server is overloaded", got=f"{len(self._queue)} waiting", expected=f"< {self._limits.max_queued}"
            )
        answer: asyncio.Future[dict[str, Tensor]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(inputs=inputs, rows=rows, key=_key(inputs), answer=answer))
        self._arrived.set()
        return await answer

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            if self._in_company:
                await self._await_company()
            batch = self._take_batch()
            if batch:
                await self._answer(batch)

    async def _await_company(self) -> None:
        """Until a full batch waits or the delay is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.max_delay_s
        while sum(waiting.rows for waiting in self._queue) < self._limits.max_rows:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
            except TimeoutError:
                return

    def _take_batch(self) -> list[_Waiting]:
        """The first live request and those behind it that fit its run, in order of arrival."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            head = self._queue[0]
            if not head.answer.done():
                if batch and not self._fits(head, batch[0], rows):
                    break
                batch.append(head)
                rows += head.rows
            self._queue.popleft()
        return batch

    def _fits(self, waiting: _Waiting, first: _Waiting, rows: int) -> bool:
        return self._batchable and rows + waiting.rows <= self._limits.max_rows and waiting.key == first.key

    async def _answer(self, batch: list[_Waiting]) -> None:
        self._in_company = len(batch) > 1 or bool(self._queue)
        self._on_batch(sum(waiting.rows for waiting in batch))
        results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run_batch, batch)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, FlightpathError):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)

    def _run_batch(self, batch: list[_Waiting]) -> list[dict[str, Tensor] | FlightpathError]:
        """In the worker thread. If a shared run fails, each request runs alone, so that only the culprit fails."""
        if len(batch) == 1:
            return [self._run_alone(batch[0])]
        try:
            joined = {name: np.concatenate([w.inputs[name] for w in batch]) for name in batch[0].inputs}
            return [*_split(self._engine.run(joined), [waiting.rows for waiting in batch])]
        except Exception:
            return [self._run_alone(waiting) for waiting in batch]

    def _run_alone(self, waiting: _Waiting) -> dict[str, Tensor] | FlightpathError:
        try:
            return self._engine.run(waiting.inputs)
        except FlightpathError as error:
            return error
        except Exception as failed:
            # Anything else would end the batcher and leave every later caller waiting for ever.
            return PermanentError("model failed", got=repr(failed), expected="an answer")


def _key(inputs: Tensors) -> _BatchKey:
    return tuple((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items())


def _split(outputs: Tensors, rows: list[int]) -> list[dict[str, Tensor]]:
    sizes = {name: tensor.shape[:1] for name, tensor in outputs.items()}
    if any(size != (sum(rows),) for size in sizes.values()):
        raise PermanentError("model answered another number of rows", got=sizes, expected=sum(rows))
    ends = np.cumsum(rows)[:-1]
    parts = {name: np.split(tensor, ends) for name, tensor in outputs.items()}
    return [{name: pieces[index] for name, pieces in parts.items()} for index in range(len(rows))]
