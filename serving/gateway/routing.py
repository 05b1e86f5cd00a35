"""Which backend answers a request: exact weighted shares, and who is asked when that one fails.

Pure: no clock, no socket. Shares are exact because the choice is smooth weighted round robin (the
algorithm of nginx's upstream module): over any window of as many requests as the weights add up to,
every backend gets precisely its weight, spread evenly instead of in bursts.
"""

from collections.abc import Collection, Sequence

from serving.errors import RetryableError
from serving.routes import Backend, Route


class SmoothWeightedRoundRobin:
    """Deterministic exact shares over backends of weight > 0."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = [backend for backend in backends if backend.weight > 0]
        self._credit = [0] * len(self._backends)

    @property
    def any(self) -> bool:
        """Whether any backend has a weight."""
        return bool(self._backends)

    def pick(self, avoid: Collection[str] = ()) -> Backend | None:
        """The next backend, or None if no weight is above 0. Those to avoid get no turn and lose none."""
        best, total = -1, 0
        for index, backend in enumerate(self._backends):
            if avoid and backend.id in avoid:
                continue
            total += backend.weight
            self._credit[index] += backend.weight
            if best < 0 or self._credit[index] > self._credit[best]:
                best = index
        if best < 0:
            return None
        self._credit[best] -= total
        return self._backends[best]


class RouteInForce:
    """A route with the state of its round robins: one for users, one for requests of other gateways."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._local = [backend for backend in route.backends if not backend.remote]
        self._all_turns = SmoothWeightedRoundRobin(route.backends)
        self._local_turns = SmoothWeightedRoundRobin(self._local)
        self._fallbacks = sorted(route.backends, key=_fallback_order)

    def candidates(self, *, hop: bool, avoid: Collection[str] = ()) -> list[Backend]:
        """The backends to try, best first; empty if nothing serves the model.

        The weighted choice first, then the other local ones by weight, those of weight 0 behind them,
        then other regions. A request that another gateway sent (`hop`) never leaves this region. The ids in
        `avoid` come last of all, in the same order, unless there are no others.
        """
        turns = self._local_turns if hop else self._all_turns
        reachable = [b for b in self._fallbacks if not (hop and b.remote)]
        welcome = [b for b in reachable if b.id not in avoid]
        first = turns.pick(avoid)
        if first is None and turns.any:
            first = welcome[0] if welcome else turns.pick()
        if first is None:
            return []
        ordered = [*welcome, *(b for b in reachable if b.id in avoid)]
        return [first, *(b for b in ordered if b is not first)]

    def describers(self, *, hop: bool) -> list[Backend]:
        """Who may be asked about the model, best first; takes nobody's turn."""
        return [b for b in self._fallbacks if b.weight > 0 and not (hop and b.remote)]


def _fallback_order(backend: Backend) -> tuple[bool, bool, int]:
    return (backend.remote, backend.weight == 0, -backend.weight)


def unserved_reason(route: Route) -> str:
    return route.reason or "no backend has a weight"


def unserved(route: Route) -> RetryableError:
    """What a user is told when nothing may be chosen (503)."""
    return RetryableError(f"nothing serves {route.model}: {unserved_reason(route)}")
