"""A region as the leaders reach it: by its agent's client, or in this process, and only while this agent leads."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from serving.errors import Fenced, Unreachable
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.registry.epochs import Epoch
from serving.regions.registry.registry import Registry

T = TypeVar("T")


class _Ordered(Protocol):
    """What a region takes orders by: its agent's client, or `OwnRegion`."""

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]: ...

    async def get_rollout(self, id: str) -> dict[str, Any]: ...

    async def revert_rollout(self, id: str, reason: str, epoch: dict[str, Any] | None = None) -> dict[str, Any]: ...

    async def put_region_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]: ...


class OwnRegion:
    """This agent's own region, as `AgentClient` is another one."""

    def __init__(self, rollouts: RolloutWorker, rollbacks: RollbackWorker) -> None:
        self.put_rollout = rollouts.put_rollout
        self.get_rollout = rollouts.get_rollout
        self.revert_rollout = rollouts.revert_rollout
        self.put_region_rollback = rollbacks.put_region_rollback


class LedRegion:
    """A region as the leaders order it: in the epoch in which this agent leads, and not at all when it does not.

    A refusal because of a later epoch says nothing about the order, so nothing is concluded from it.
    """

    def __init__(self, region: _Ordered, *, require: Callable[[], Epoch], registry: Registry) -> None:
        """`require`: the epoch in which this agent leads, in a section of the registry; raises Fenced."""
        self._region = region
        self._require = require
        self._registry = registry

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._order(lambda epoch: self._region.put_rollout(id, {**order, "epoch": epoch}))

    async def get_rollout(self, id: str) -> dict[str, Any]:
        return await self._region.get_rollout(id)

    async def revert_rollout(self, id: str, reason: str) -> dict[str, Any]:
        return await self._order(lambda epoch: self._region.revert_rollout(id, reason, epoch))

    async def put_region_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._order(lambda epoch: self._region.put_region_rollback(id, {**order, "epoch": epoch}))

    async def _order(self, call: Callable[[dict[str, Any]], Awaitable[T]]) -> T:
        try:
            epoch = await self._registry.run(self._require)
            return await call(epoch.to_json())
        except Fenced as refused:
            raise Unreachable("this agent does not lead", got=str(refused), expected="its own epoch") from refused
