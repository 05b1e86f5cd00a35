"""A region's gateway with its users: follows routes, counts, and is as unkind as a process on a network can be."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from random import Random
from typing import TypeVar

from serving.counters import Counters, Outcomes, Snapshot
from serving.errors import Unreachable
from serving.regions.traffic.gateway_traffic import Pairs
from serving.routes import Route
from tests.simulation.machine import Machine

T = TypeVar("T")
_USERS_PER_S = 40.0


class Gateway:
    """One region's `TrafficBackend`. Routes survive its end, counters do not."""

    def __init__(
        self,
        machine: Machine,
        rng: Random,
        *,
        timeout_s: float,
        is_bad: Callable[[str], bool],
        on_route: Callable[[Route], None],
    ) -> None:
        self._machine = machine
        self._rng = rng
        self._timeout_s = timeout_s
        self._is_bad = is_bad
        self._on_route = on_route
        self._boots = 0
        self._counted_at = 0.0
        self._answered: dict[str, float] = defaultdict(float)
        self._failed: dict[str, float] = defaultdict(float)
        self.in_force: dict[str, Route] = {}
        self.away = False
        self.hangs_until = 0.0
        self.loses = 0.0
        """Share of calls whose request or answer is lost."""

    # What agents ask

    async def set_route(self, route: Route) -> None:
        await self._answer(lambda: self._follow(route))

    async def routes(self) -> dict[str, Route]:
        return await self._answer(lambda: dict(self.in_force))

    async def stats(self, model: str) -> Snapshot:
        return await self._answer(lambda: self._snapshot(model))

    async def pairs(self, model: str, *, after: int) -> Pairs:
        return await self._answer(lambda: Pairs(boot_id=str(self._boots), pairs=[]))

    async def _answer(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._rng.uniform(0.0, 0.02))
        if self.away:
            raise Unreachable("the gateway is away")
        hangs_s = self.hangs_until - loop.time()
        if hangs_s > self._timeout_s:
            # What lies in its socket is done when it goes on, long after nobody waits any more.
            if self._rng.random() < 0.5:
                loop.call_later(hangs_s, work)
            await asyncio.sleep(self._timeout_s)
            raise Unreachable("the gateway hangs")
        await asyncio.sleep(max(0.0, hangs_s))
        if self._rng.random() < self.loses:
            if self._rng.random() < 0.5:
                work()
            raise Unreachable("the connection broke")
        result = work()
        await asyncio.sleep(self._rng.uniform(0.0, 0.02))
        return result

    # What it does

    def restart(self) -> None:
        """Its counters begin anew, under another boot."""
        self._count()
        self._boots += 1
        self._answered.clear()
        self._failed.clear()

    def _follow(self, route: Route) -> None:
        self._count()
        self.in_force[route.model] = route
        self._on_route(route)

    def _count(self) -> None:
        """Everything that users were answered since the last look, by the weights in force."""
        now = asyncio.get_running_loop().time()
        since_s, self._counted_at = now - self._counted_at, now
        if self.away:
            return
        for route in self.in_force.values():
            for backend in route.backends:
                works = backend.remote or (self._machine.answers(backend.release) and not self._is_bad(backend.release))
                counted = self._answered if works else self._failed
                counted[backend.id] += _USERS_PER_S * since_s * backend.weight / 100

    def _snapshot(self, model: str) -> Snapshot:
        self._count()
        route = self.in_force.get(model)
        backends = {} if route is None else {backend.id: self._counters(backend.id) for backend in route.backends}
        return Snapshot(boot_id=str(self._boots), backends=backends)

    def _counters(self, backend: str) -> Counters:
        users = Outcomes(answered=int(self._answered[backend]), failed=int(self._failed[backend]))
        return Counters(users=users)
