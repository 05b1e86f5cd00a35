"""Whatever befalls three regions, what was acknowledged holds and all of it comes to an end (docs/guarantees.md).

A seed that falls is run alone with `pytest tests/simulation/test_regions.py -k 'seed[17]'`, more of them with
`make soak SEEDS=n`.
"""

import pytest

from tests.simulation.simulation import simulate
from tests.simulation.story import draw_story


@pytest.mark.parametrize("seed", range(8))
def test_seed(seed: int) -> None:
    assert simulate(seed) == [], f"seed {seed}:\n{draw_story(seed)}"


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert str(draw_story(5)) == str(draw_story(5)) != str(draw_story(6))
