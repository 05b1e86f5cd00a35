"""The queue: one look at a time per key, bursts coalesce, failures wait."""

import asyncio
from datetime import timedelta

from flightpath_operator.runtime.queue import Key, Queue, QueueSettings

ONE, TWO = Key("TrainingJob", "default", "one"), Key("TrainingJob", "default", "two")
QUICK = QueueSettings(first_backoff_s=0.01, max_backoff_s=0.02)


class Looks:
    """Counts looks, and how many of one key ran at once."""

    def __init__(self, *, again: timedelta | None = None, failures: int = 0) -> None:
        self.seen: list[Key] = []
        self.running: set[Key] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self._again = again
        self._failures = failures

    async def __call__(self, key: Key) -> timedelta | None:
        assert key not in self.running, "two looks at one key at the same time"
        self.running.add(key)
        try:
            await self.gate.wait()
            self.seen.append(key)
            if self._failures:
                self._failures -= 1
                raise RuntimeError("on order")
            again, self._again = self._again, None
            return again
        finally:
            self.running.discard(key)


async def test_a_burst_of_events_costs_one_look_and_one_for_what_came_meanwhile() -> None:
    looks = Looks()
    looks.gate.clear()
    queue = Queue(looks)
    for _ in range(100):
        queue.wake(ONE)
    await asyncio.sleep(0)
    for _ in range(100):
        queue.wake(ONE)
    looks.gate.set()
    await queue.idle()
    assert looks.seen == [ONE, ONE]
    await queue.close()


async def test_keys_do_not_wait_for_each_other() -> None:
    looks = Looks()
    looks.gate.clear()
    queue = Queue(looks)
    queue.wake(ONE)
    queue.wake(TWO)
    await asyncio.sleep(0.01)
    assert looks.running == {ONE, TWO}
    looks.gate.set()
    await queue.idle()
    await queue.close()


async def test_a_look_that_asks_for_it_is_repeated_without_an_event() -> None:
    looks = Looks(again=timedelta(milliseconds=5))
    queue = Queue(looks)
    queue.wake(ONE)
    async with asyncio.timeout(5):
        while len(looks.seen) < 2:
            await asyncio.sleep(0.001)
    await queue.close()


async def test_a_failed_look_is_repeated_after_a_pause_even_if_events_come() -> None:
    looks = Looks(failures=2)
    queue = Queue(looks, QueueSettings(first_backoff_s=30.0))
    queue.wake(ONE)
    await asyncio.sleep(0)
    queue.wake(ONE)
    await queue.idle()
    assert looks.seen == [ONE]
    await queue.close()


async def test_a_failed_look_is_repeated_until_it_succeeds() -> None:
    looks = Looks(failures=3)
    queue = Queue(looks, QUICK)
    queue.wake(ONE)
    async with asyncio.timeout(5):
        while len(looks.seen) < 4:
            await asyncio.sleep(0.001)
    await queue.close()


async def test_a_forgotten_key_is_not_looked_at_again() -> None:
    looks = Looks()
    queue = Queue(looks)
    queue.wake_in(ONE, 0.01)
    queue.forget(ONE)
    await asyncio.sleep(0.03)
    assert looks.seen == []
    await queue.close()


async def test_the_earlier_of_two_wishes_counts() -> None:
    looks = Looks()
    queue = Queue(looks)
    queue.wake_in(ONE, 30.0)
    queue.wake_within(ONE, 0.001)
    queue.wake_within(ONE, 30.0)
    async with asyncio.timeout(5):
        while not looks.seen:
            await asyncio.sleep(0.001)
    await queue.close()
