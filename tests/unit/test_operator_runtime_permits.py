"""The bound on calls under way: what is urgent goes first, and no permit is lost."""

import asyncio
from collections.abc import Callable

from flightpath_operator.runtime.permits import Permits, Urgency


async def _hold(permits: Permits, urgency: Urgency, done: Callable[[], None]) -> None:
    async with permits.one(urgency):
        await asyncio.sleep(0)
        done()


async def test_the_lease_goes_before_work_and_work_before_records() -> None:
    permits, order = Permits(1), []
    async with permits.one():
        wanted = (Urgency.RECORD, Urgency.WORK, Urgency.LEASE, Urgency.WORK)
        waiting = [asyncio.create_task(_hold(permits, each, lambda each=each: order.append(each))) for each in wanted]  # type: ignore[misc]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == sorted(wanted)


async def test_no_more_are_under_way_than_allowed() -> None:
    permits, now, most = Permits(3), 0, 0

    async def call() -> None:
        nonlocal now, most
        async with permits.one():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(call() for _ in range(20)))
    assert most == 3


async def test_a_call_that_is_cancelled_while_it_waits_costs_no_permit() -> None:
    permits = Permits(1)
    async with permits.one():
        lost = asyncio.create_task(_hold(permits, Urgency.WORK, lambda: None))
        await asyncio.sleep(0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
    async with asyncio.timeout(1), permits.one():
        pass


async def test_a_call_that_is_cancelled_as_its_turn_comes_hands_it_on() -> None:
    permits = Permits(1)
    done: list[int] = []
    async with permits.one():
        lost = asyncio.create_task(_hold(permits, Urgency.WORK, lambda: done.append(1)))
        kept = asyncio.create_task(_hold(permits, Urgency.WORK, lambda: done.append(2)))
        await asyncio.sleep(0)
    lost.cancel()
    await asyncio.gather(lost, kept, return_exceptions=True)
    assert done == [2]
