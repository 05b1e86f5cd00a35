"""A model's route as agents write it and gateways follow it: backends, their weights, what is mirrored. Pure."""

from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from serving.errors import InvalidInput
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
class Mirror:
    """Repeats answered requests on the other of two backends, off the request's path."""

    candidate: str
    """Whose counters note the comparison."""
    live: str
    candidate_share: float = 1.0
    """Share of the candidate's answers that the live backend repeats, 0 to 1."""
    live_share: float = 0.0
    """Share of the live backend's answers that the candidate repeats, 0 to 1: a shadow, while it has no users."""
    completions_share: float = 0.0
    """The same for completions, either way; off unless a policy names it, since a repeat costs as much as an answer."""

    def __post_init__(self) -> None:
        if self.candidate == self.live:
            raise InvalidInput("mirror names one backend twice", got=self.live, expected="two backends")
        for name in ("candidate_share", "live_share", "completions_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidInput(f"{name} of the mirror is out of range", got=getattr(self, name), expected="0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Everything a gateway knows about one model."""

    model: str
    reason: str | None
    """Why nothing serves the model, if so; users read it in the 503."""
    classes: list[str]
    """Labels of the first output's last dimension, from the bundle."""
    mirror: Mirror | None
    """Which answers are repeated on another backend, to compare them."""
    backends: list[Backend]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_name("model name", self.model)
        ids = [backend.id for backend in self.backends]
        if len(set(ids)) != len(ids):
            raise InvalidInput("route names a backend twice", got=ids, expected="distinct ids")
        for side in () if self.mirror is None else (self.mirror.candidate, self.mirror.live):
            if side not in ids:
                raise InvalidInput("mirror names no backend of the route", got=side, expected=" | ".join(ids))

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
    "mirror": (dict, type(None)),
    "backends": list,
}
_MIRROR_TYPES: Final = {
    "candidate": str,
    "live": str,
    "candidate_share": (int, float),
    "live_share": (int, float),
    "completions_share": (int, float),
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
    """A route for `model` from JSON; InvalidInput says which field does not hold.

    Agent and gateway are replaced one after the other: fields of a younger one are left out, as are those that are gone
    (`mirror_to` of before mirrors had shares). What an older one must not overlook gets a new schema_version.
    """
    raw = _read_fields("route", raw, _ROUTE_TYPES, optional={"reason", "mirror", "classes"})
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
        mirror=None if raw.get("mirror") is None else _parse_mirror(raw["mirror"]),
        backends=[_parse_backend(backend) for backend in raw["backends"]],
    )


def _parse_mirror(raw: Any) -> Mirror:
    shares = {name for name in _MIRROR_TYPES if name.endswith("_share")}
    return Mirror(**_read_fields("mirror", raw, _MIRROR_TYPES, optional=shares))


def _parse_backend(raw: Any) -> Backend:
    return Backend(**_read_fields("backend", raw, _BACKEND_TYPES, optional=set()))


def _read_fields(what: str, raw: Any, types: dict[str, Any], *, optional: set[str]) -> dict[str, Any]:
    """Those of `types` that are there, checked."""
    if not isinstance(raw, dict):
        raise InvalidInput(f"{what} is malformed", got=raw, expected="an object")
    if set(types) - optional - set(raw):
        raise InvalidInput(f"{what} has wrong fields", got=sorted(raw), expected=sorted(types))
    known = {name: value for name, value in raw.items() if name in types}
    for name, value in known.items():
        # bool is an int to isinstance, but `weight: true` is a mistake.
        if not isinstance(value, types[name]) or (isinstance(value, bool) and types[name] is not bool):
            raise InvalidInput(f"{what} has a field of a wrong type", got={name: value}, expected=types[name])
    return known
