"""Calls from one agent to another over a network that delays, reorders, cuts and loses."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Protocol

from serving.errors import FlightpathError, Unreachable, error_from_json


class Callee(Protocol):
    """An agent that takes calls; None instead of it is one that is dead."""

    def handle(self, call: str, *arguments: Any) -> asyncio.Task[Any]: ...


class Network:
    """All links. A message that was sent arrives whether or not its sender still lives or waits."""

    def __init__(self, rng: Random, agents: dict[str, Callee | None]) -> None:
        self.rng = rng
        self.agents = agents
        self.cuts: set[frozenset[str]] = set()
        self.loses = 0.0
        """Share of messages that are lost."""
        self.bugs: list[str] = []
        self._messages: set[asyncio.Task[Any]] = set()

    def passes(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.cuts and self.rng.random() >= self.loses

    def delay_s(self) -> float:
        """Mostly milliseconds; now and then so long that later ones arrive earlier, or nobody waits any more."""
        return self.rng.expovariate(50.0) if self.rng.random() < 0.97 else self.rng.uniform(0.0, 15.0)

    def send(self, message: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(message)
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)
        return task

    async def close(self) -> None:
        for message in list(self._messages):
            message.cancel()
        await asyncio.gather(*self._messages, return_exceptions=True)


class Link:
    """An agent as another one reaches it: the methods of `AgentClient` that agents use."""

    def __init__(self, network: Network, source: str, target: str, *, timeout_s: float) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._timeout_s = timeout_s

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._call("put_rollout", id, order)

    async def get_rollout(self, id: str) -> dict[str, Any]:
        return await self._call("get_rollout", id)

    async def revert_rollout(self, id: str, reason: str, epoch: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self._call("revert_rollout", id, reason, epoch)

    async def put_region_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        return await self._call("put_region_rollback", id, order)

    async def report_rollback(self, id: str, report: dict[str, Any]) -> dict[str, Any]:
        return await self._call("report_rollback", id, report)

    async def get_home(self) -> dict[str, Any]:
        return await self._call("get_home")

    async def tell_home(self, told: dict[str, Any]) -> dict[str, Any]:
        return await self._call("tell_home", told)

    async def handover(self) -> dict[str, Any]:
        return await self._call("handover")

    async def peer_models(self) -> list[dict[str, Any]]:
        return await self._call("peer_models")

    async def _call(self, call: str, *arguments: Any) -> Any:
        message = self._network.send(self._deliver(call, json.dumps(arguments)))
        await asyncio.wait({message}, timeout=self._timeout_s)
        if not message.done() or (answer := message.result()) is None:
            raise Unreachable(f"{self._target} did not answer")
        status, body = answer
        if status >= 400:
            raise error_from_json(status, json.loads(body))
        return json.loads(body)

    async def _deliver(self, call: str, arguments: str) -> tuple[int, str] | None:
        """The answer as HTTP has it; None when a message was lost or the other agent died meanwhile."""
        network = self._network
        await asyncio.sleep(network.delay_s())
        agent = network.agents[self._target]
        if agent is None or not network.passes(self._source, self._target):
            return None
        handling = agent.handle(call, *json.loads(arguments))
        await asyncio.wait({handling})
        if handling.cancelled():
            return None
        answer = self._answer(call, handling.exception() or handling.result())
        await asyncio.sleep(network.delay_s())
        return answer if network.passes(self._source, self._target) else None

    def _answer(self, call: str, outcome: Any) -> tuple[int, str]:
        if isinstance(outcome, FlightpathError):
            return outcome.http_status, json.dumps(outcome.to_json())
        if isinstance(outcome, BaseException):
            self._network.bugs.append(f"{call} to {self._target}: {outcome!r}")
            return 500, json.dumps(FlightpathError("the agent failed on this call").to_json())
        return 200, json.dumps(outcome)


Connect = Callable[..., Link]
