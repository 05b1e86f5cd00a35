"""Which agent takes a rollback that a workflow orders."""

from typing import Any, cast

import pytest

from serving.errors import Conflict, Unreachable
from serving.regions.places.client import AgentClient
from tasks.promotion.rollback import make_rollback_order, roll_back

ORDER = make_rollback_order(model="m", to_version=0, regions=["away"], reason="")
ENDED = {
    "id": "back",
    "model": "m",
    "state": "live",
    "ordered_at": 1.0,
    "finished_at": 2.0,
    "failure": None,
    "regions": [],
}


class Agent:
    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.base_url = "http://agent"
        self.asked = 0
        self._answer = answer

    async def put_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


async def ordered(*agents: Agent) -> str:
    outcome = await roll_back(cast(list[AgentClient], list(agents)), "back", ORDER, timeout_s=1.0)
    return outcome.state


async def test_the_regions_own_agent_takes_it_while_home_is_away() -> None:
    home, away = Agent(Unreachable("home is away")), Agent(ENDED)
    assert (await ordered(home, away), home.asked, away.asked) == ("live", 1, 1)


async def test_home_takes_it_where_it_answers() -> None:
    home, away = Agent(ENDED), Agent(ENDED)
    assert (await ordered(home, away), away.asked) == ("live", 0)


async def test_what_home_refuses_is_ordered_nowhere_else() -> None:
    home, away = Agent(Conflict("no version before")), Agent(ENDED)
    with pytest.raises(Conflict):
        await ordered(home, away)
    assert away.asked == 0


async def test_nobody_answers() -> None:
    with pytest.raises(Unreachable, match="away too"):
        await ordered(Agent(Unreachable("home is away")), Agent(Unreachable("away too")))
