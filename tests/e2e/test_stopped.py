"""SIGSTOP to every kind of process at telling points of a promotion and of a rollback; nobody continues it.

Who supervises it replaces it: the agent its model servers, the real supervisor agents and gateways. Promotions and
rollbacks end as if undisturbed, and users of the region beside it notice nothing. vLLM's engine: test_stopped_vllm.py.
"""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.fakes.survival import SUPERVISOR, World, start_world, survive_promotion, survive_rollback
from tests.fakes.users import users_of

IN_A_PROMOTION = [
    pytest.param("candidate", "canary", marks=pytest.mark.smoke),
    ("live server", "canary"),
    ("gateway", "canary"),
    pytest.param("gateway", "live", marks=pytest.mark.smoke),
    ("home agent", "golden"),
    ("home agent", "canary"),
    ("away agent", "canary"),
]
IN_A_ROLLBACK = [
    ("candidate", "starting"),
    ("live server", "switching"),
    ("gateway", "switching"),
    ("home agent", "starting"),
    ("away agent", "switching"),
]


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    started = start_world(tmp_path_factory.mktemp("stopped"), supervised=True)
    yield started
    started.close()


def beside(victim: str) -> str:
    return "home" if victim == "away agent" else "away"


@pytest.mark.parametrize(("victim", "point"), IN_A_PROMOTION)
async def test_a_promotion_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    async with users_of(regions.topology, beside(victim), each=1, pause_s=0.05) as users:
        await survive_promotion(regions, victim, point, stopped=True)
    assert (users.failures, users.answered > 0) == ([], True)


@pytest.mark.parametrize(("victim", "point"), IN_A_ROLLBACK)
async def test_a_rollback_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    async with users_of(regions.topology, beside(victim), each=1, pause_s=0.05) as users:
        await survive_rollback(regions, victim, point, stopped=True)
    assert (users.failures, users.answered > 0) == ([], True)


async def test_a_stopped_supervisor_stops_nothing_that_it_supervises_and_goes_on_when_continued(regions: World) -> None:
    supervisor, before = regions.processes[SUPERVISOR], regions.supervised()
    async with users_of(regions.topology, "home", "away", each=1, pause_s=0.05) as users:
        supervisor.send_signal(signal.SIGSTOP)
        try:
            assert await regions.promote() == "live: None"
            assert await regions.go_back() == "live: None"
            await regions.check_unharmed()
            assert regions.supervised() == before
        finally:
            supervisor.send_signal(signal.SIGCONT)
    assert (users.failures, users.answered > 0) == ([], True)
    # The time for which it was stopped is no silence of theirs: only the gateway that is stopped now is replaced.
    os.kill(before["gateway-home"].pid, signal.SIGSTOP)
    async with asyncio.timeout(60):
        while (after := regions.supervised()).keys() != before.keys() or after == before:
            await asyncio.sleep(0.05)
    assert {name for name in before if after[name] != before[name]} == {"gateway-home"}
    await regions.check_unharmed()
