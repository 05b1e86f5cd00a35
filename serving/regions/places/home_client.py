"""The home region's agent, whichever region that is: the lead moves by an operator's order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from serving.errors import Fenced, FlightpathError, Unreachable
from serving.regions.deciding.promotion_state import RUNNING
from serving.regions.deciding.timing import DEFAULT_TIMING
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology
from serving.regions.registry.epochs import Epoch, read_epoch

_LOOK_S: Final = 3.0


class HomeClient(AgentClient):
    """An `AgentClient` of the agent that leads.

    It begins with the topology's home region. One that does not answer, or says that it does not lead, is left for the
    one that the regions follow, if that is another.
    """

    def __init__(
        self,
        topology: Topology,
        token: str | Callable[[], str],
        *,
        timeout_s: float = DEFAULT_TIMING.agent_timeout_s,
        on_behalf_of: str = "",
    ) -> None:
        super().__init__(topology.home.agent_url, token, timeout_s=timeout_s, on_behalf_of=on_behalf_of)
        self._urls = {region.name: region.agent_url for region in topology.regions}
        self._others = [AgentClient(url, token, timeout_s=_LOOK_S) for url in self._urls.values()]

    async def events(self, id: str, since: int = 0) -> AsyncIterator[dict[str, Any]]:
        while True:
            asked = self.base_url
            try:
                async for entry in super().events(id, since):
                    since = entry["seq"]
                    yield entry
                # An agent that leads no longer ends its streams too.
                if (await self.get_promotion(id))["state"] != RUNNING:
                    return
            except (Fenced, Unreachable):
                if not await self._look_around():
                    raise
            if self.base_url != asked:
                # Journals are numbered by each agent for itself: what was seen says nothing about the next one's.
                since = 0

    async def _object(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await super()._object(method, path, body)
        except (Fenced, Unreachable):
            if not await self._look_around():
                raise
            return await super()._object(method, path, body)

    async def _look_around(self) -> bool:
        """Whether another agent leads than the one that was asked; it is asked from now on."""
        answers = await asyncio.gather(*(_epoch(agent) for agent in self._others))
        latest = max((epoch for epoch in answers if epoch is not None), default=None)
        url = None if latest is None else self._urls.get(latest.home)
        if url is None or url.rstrip("/") == self.base_url:
            return False
        self.base_url = url.rstrip("/")
        return True


async def _epoch(agent: AgentClient) -> Epoch | None:
    try:
        return read_epoch((await agent.get_home()).get("epoch"))
    except FlightpathError:
        return None
