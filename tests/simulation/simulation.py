"""One story in one virtual world."""

import asyncio
import logging
import tempfile
from pathlib import Path
from random import Random

from tests.simulation.invariants import broken
from tests.simulation.story import Story, draw_story
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import World


def simulate(seed: int, story: Story | None = None) -> list[str]:
    """What was broken in the story (by default the seed's); the same each time for one seed."""
    told = draw_story(seed) if story is None else story
    rng = Random(f"threads {seed}")
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(lambda: rng.expovariate(200.0)))
    try:
        with tempfile.TemporaryDirectory() as folder, runner:
            return runner.run(_simulate(told, seed, Path(folder)))
    finally:
        logging.disable(disabled)


async def _simulate(story: Story, seed: int, folder: Path) -> list[str]:
    world = World(story, seed, folder)
    try:
        await world.play()
        return broken(world, story)
    finally:
        await world.close()
