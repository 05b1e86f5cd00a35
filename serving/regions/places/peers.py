"""What the other regions serve, learned by asking their agents every few seconds.

A region that does not run a model sends its requests to one that does, and keeps the others in
reserve; neither needs the home region, Flyte or a cloud's control plane.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.errors import FlightpathError
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Region

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteModel:
    """A model that another region serves live, reached through that region's gateway."""

    model: str
    region: str
    release: str
    version: int
    gateway_url: str
    classes: list[str] = field(default_factory=list)


class PeerPort(Protocol):
    """Another region's agent."""

    async def peer_models(self) -> list[dict[str, Any]]: ...


class Peers:
    """The other regions, asked through `peer` tokens."""

    def __init__(
        self,
        regions: list[Region],
        token: Callable[[], str],
        *,
        timing: Timing = DEFAULT_TIMING,
        connect: Callable[..., PeerPort] = AgentClient,
    ) -> None:
        """`connect` makes an agent's client, as `AgentClient` is made."""
        self._timing = timing
        self._regions = {region.name: region for region in regions}
        self._clients = {
            region.name: connect(region.agent_url, token, timeout_s=timing.peers_timeout_s) for region in regions
        }
        self._models: dict[str, list[RemoteModel]] = {}
        self._reachable: dict[str, bool] = {}

    async def ask(self) -> None:
        """Once, all of them side by side; a region that does not answer is no failure."""
        await asyncio.gather(*(self._ask(name) for name in self._regions))

    async def _ask(self, name: str) -> None:
        try:
            models = await self._clients[name].peer_models()
            self._models[name] = [_remote(self._regions[name], entry) for entry in models]
            self._reachable[name] = True
        except (FlightpathError, KeyError, TypeError, ValueError) as broken:
            if self._reachable.get(name, True):
                logger.warning("region %s cannot be asked what it serves: %s", name, broken)
            self._reachable[name] = False

    def serving(self, model: str) -> list[RemoteModel]:
        """Regions that serve the model live, in the topology's order.

        What an agent last said stands when no agent of a serving region answers: its gateway may be up.
        """
        found = {name: entry for name, models in self._models.items() for entry in models if entry.model == model}
        answering = [name for name in self._regions if name in found and self._reachable.get(name)]
        return [found[name] for name in answering or [name for name in self._regions if name in found]]

    def models(self) -> set[str]:
        return {entry.model for models in self._models.values() for entry in models}

    def reachable(self) -> dict[str, bool]:
        return {name: self._reachable.get(name, False) for name in self._regions}


def _remote(region: Region, entry: Mapping[str, Any]) -> RemoteModel:
    return RemoteModel(
        model=str(entry["model"]),
        region=region.name,
        release=str(entry["release"]),
        version=int(entry["version"]),
        gateway_url=region.gateway_url,
        classes=[str(name) for name in entry["classes"]],
    )
