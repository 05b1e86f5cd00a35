"""Which backend answers a request: routes, their validation, and exact weighted shares.

Pure: no clock, no socket. Shares are exact because the choice is smooth weighted round robin (the
algorithm of nginx's upstream module): over any window of as many requests as the weights add up to,
every backend gets precisely its weight, spread evenly instead of in bursts.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from serving.errors import InvalidInput, RetryableError
from serving.releases import check_name

SCHEMA_VERSION: Final = 1
_MAX_BACKENDS: Final = 64
_MAX_CLASSES: Final = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One model server, or the gateway of another region."""

    id: str
    release: str
    version: int
    region: str
    url: str
    """Base address, `http://host:port`."""
    remote: bool
    """Whether another region's gateway is behind the address."""
    weight: int
    """0 to 100; a share of the sum of all weights."""

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > 300 or not self.id.isprintable():
            raise InvalidInput("backend id is malformed", got=self.id, expected="1 to 300 printable characters")
        check_name("release id", self.release)
        check_name("region name", self.region)
        if not 0 <= self.weight <= 100:
            raise InvalidInput(f"weight of {self.id} is out of range", got=self.weight, expected="0 to 100")
        _check_url(self.id, self.url)


def _check_url(backend_id: str, url: str) -> None:
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.path)
    if not plain or parts.username is not None:
        raise InvalidInput(f"url of {backend_id} is malformed", got=url, expected="http://host:port")


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Everything a gateway knows about one model."""

    model: str
    reason: str | None
    """Why nothing serves the model, if so; users read it in the 503."""
    classes: list[str]
    """Labels of the first output's last dimension, from the bundle."""
    mirror_to: str | None
    """The backend that answers are compared with."""
    backends: list[Backend]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_name("model name", self.model)
        ids = [backend.id for backend in self.backends]
        if len(set(ids)) != len(ids):
            raise InvalidInput("route names a backend twice", got=ids, expected="distinct ids")
        if self.mirror_to is not None and self.mirror_to not in ids:
            raise InvalidInput("mirror_to is not a backend of the route", got=self.mirror_to, expected=" | ".join(ids))

    def backend(self, backend_id: str | None) -> Backend | None:
        return next((backend for backend in self.backends if backend.id == backend_id), None)

    @property
    def served(self) -> bool:
        """Whether any backend may be chosen first."""
        return any(backend.weight > 0 for backend in self.backends)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_ROUTE_TYPES: Final = {
    "schema_version": int,
    "model": str,
    "reason": (str, type(None)),
    "classes": list,
    "mirror_to": (str, type(None)),
    "backends": list,
}
_BACKEND_TYPES: Final = {
    "id": str,
    "release": str,
    "version": int,
    "region": str,
    "url": str,
    "remote": bool,
    "weight": int,
}


def parse_route(raw: Any, *, model: str) -> Route:
    """A route for `model` from JSON; InvalidInput says which field does not hold."""
    _check_fields("route", raw, _ROUTE_TYPES, optional={"reason": None, "mirror_to": None, "classes": []})
    if raw["schema_version"] != SCHEMA_VERSION:
        raise InvalidInput("route has an unknown schema_version", got=raw["schema_version"], expected=SCHEMA_VERSION)
    if raw["model"] != model:
        raise InvalidInput("route is for another model", got=raw["model"], expected=model)
    classes = raw.get("classes", [])
    if len(classes) > _MAX_CLASSES or not all(isinstance(name, str) for name in classes):
        raise InvalidInput("classes is malformed", got=classes, expected=f"at most {_MAX_CLASSES} strings")
    if len(raw["backends"]) > _MAX_BACKENDS:
        raise InvalidInput("route has too many backends", got=len(raw["backends"]), expected=f"<= {_MAX_BACKENDS}")
    return Route(
        model=model,
        reason=raw.get("reason"),
        classes=classes,
        mirror_to=raw.get("mirror_to"),
        backends=[_parse_backend(backend) for backend in raw["backends"]],
    )


def _parse_backend(raw: Any) -> Backend:
    _check_fields("backend", raw, _BACKEND_TYPES, optional={})
    return Backend(**raw)


def _check_fields(what: str, raw: Any, types: dict[str, Any], *, optional: dict[str, Any]) -> None:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{what} is malformed", got=raw, expected="an object")
    if set(raw) - set(types) or set(types) - set(optional) - set(raw):
        raise InvalidInput(f"{what} has wrong fields", got=sorted(raw), expected=sorted(types))
    for name, value in raw.items():
        # bool is an int to isinstance, but `weight: true` is a mistake.
        if not isinstance(value, types[name]) or (isinstance(value, bool) and types[name] is not bool):
            raise InvalidInput(f"{what} has a field of a wrong type", got={name: value}, expected=types[name])


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
