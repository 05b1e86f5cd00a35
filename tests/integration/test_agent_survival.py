"""SIGKILL to agents, a gateway and model servers at some points of a promotion and of a rollback.

One of each kind; tests/e2e/test_survival.py has every kind at every point.
"""

from collections.abc import Iterator

import pytest

from tests.fakes.survival import World, start_world, survive_promotion, survive_rollback


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    started = start_world(tmp_path_factory.mktemp("survival"))
    yield started
    started.close()


@pytest.mark.parametrize(
    ("victim", "point"),
    [
        ("home agent", "replicating"),
        ("away agent", "starting"),
        ("gateway", "canary"),
        ("candidate", "golden"),
        ("live server", "canary"),
    ],
)
async def test_a_promotion_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    await survive_promotion(regions, victim, point)


@pytest.mark.parametrize(
    ("victim", "point"),
    [("home agent", "ordered"), ("away agent", "starting"), ("candidate", "starting"), ("gateway", "switching")],
)
async def test_a_rollback_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    await survive_rollback(regions, victim, point)
