"""SIGKILL to every kind of process at every point of a promotion and of a rollback: all end as if undisturbed."""

from collections.abc import Iterator

import pytest

from tests.fakes.survival import (
    PROMOTION_POINTS,
    ROLLBACK_POINTS,
    VICTIMS,
    World,
    start_world,
    survive_promotion,
    survive_rollback,
)


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    started = start_world(tmp_path_factory.mktemp("survival"))
    yield started
    started.close()


@pytest.mark.parametrize("point", PROMOTION_POINTS)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_promotion_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    await survive_promotion(regions, victim, point)


@pytest.mark.parametrize("point", ROLLBACK_POINTS)
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_rollback_ends_as_it_would_have(regions: World, victim: str, point: str) -> None:
    await survive_rollback(regions, victim, point)
