"""Background loops: begun again whatever they raise, said once, named when they make no progress."""

import asyncio
import logging

import pytest

from serving.errors import Unreachable
from serving.regions.acting.supervision import Beat, Complaints, Loops

LOGGER = logging.getLogger("test")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_loops(clock: Clock) -> Loops:
    return Loops(LOGGER, first_backoff_s=0.0, max_backoff_s=0.0, clock=clock)


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_loop_that_raises_begins_again() -> None:
    loops, begun = make_loops(Clock()), 0

    async def one_pass() -> None:
        nonlocal begun
        begun += 1
        raise KeyError("a bug") if begun < 3 else asyncio.CancelledError

    loops.repeat("broken", one_pass, every_s=0.0, stuck_after_s=1.0)
    await turns()
    await loops.close()
    assert begun == 3


async def test_what_fails_again_and_again_is_said_once_and_that_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    complaints = Complaints(LOGGER, "serving")
    for _ in range(3):
        complaints.say(Unreachable("gateway is away"))
    complaints.end()
    complaints.end()
    assert [record.getMessage() for record in caplog.records] == ["serving: gateway is away", "serving: goes on"]


async def test_a_bug_is_said_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    Complaints(LOGGER, "serving").say(KeyError("a bug"))
    assert caplog.records[0].exc_info is not None


async def test_a_loop_that_hangs_and_one_that_only_fails_are_named() -> None:
    clock = Clock()
    loops = make_loops(clock)

    async def hangs(beat: Beat) -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise Unreachable("registry is away")

    async def works(beat: Beat) -> None:
        while True:
            beat()
            await asyncio.sleep(0)

    loops.keep("hanging", hangs, stuck_after_s=30.0)
    loops.repeat("failing", fails, every_s=0.0, stuck_after_s=30.0)
    loops.keep("working", works, stuck_after_s=30.0)
    await turns()
    clock.now = 30.0
    await turns()
    assert loops.stuck() == []
    clock.now = 31.0
    await turns()
    assert loops.stuck() == [
        "hanging: no progress for 31 s",
        "failing: no progress for 31 s registry is away",
    ]
    await loops.close()


async def test_progress_after_a_failure_makes_the_loop_well_again() -> None:
    clock = Clock()
    loops, away = make_loops(clock), True

    async def one_pass() -> None:
        if away:
            raise Unreachable("registry is away")

    loops.repeat("serving", one_pass, every_s=0.0, stuck_after_s=30.0)
    clock.now = 40.0
    await turns()
    assert loops.stuck() == ["serving: no progress for 40 s registry is away"]
    away = False
    await turns()
    assert loops.stuck() == []
    await loops.close()
