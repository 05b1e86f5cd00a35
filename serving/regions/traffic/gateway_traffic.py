"""Routes of one region's gateway: what they are, what they should be, and how the gateway learns of them.

`plan_route` derives a model's route from what is live, what is being tried and who else serves the
model, so a route is never edited: it is computed anew and replaced whole.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp

from serving.errors import BadUpstream, Unreachable, error_from_json
from serving.regions.deciding.rollout_state import backend_id
from serving.regions.deciding.windows import Snapshot, parse_snapshot
from serving.regions.places.peers import RemoteModel

_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    id: str
    release: str
    version: int
    region: str
    url: str
    remote: bool
    weight: int
    """0 to 100; 0 answers only when all others failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A model's route as docs/api.md has it."""

    model: str
    backends: list[Backend]
    reason: str | None = None
    classes: list[str] = field(default_factory=list)
    mirror_to: str | None = None
    schema_version: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A release's server in this region."""

    release: str
    version: int
    url: str


def plan_route(
    model: str,
    *,
    region: str,
    live: LocalServer | None,
    candidate: LocalServer | None,
    candidate_percent: int,
    remotes: Sequence[RemoteModel],
    reason: str | None,
    classes: list[str],
) -> Route:
    """The route of `model`: the candidate's share, the rest to the live server or else to another region.

    With a live server the other regions stand by at weight 0: they answer when the local servers cannot.
    """
    rest = 100 - candidate_percent if candidate is not None else 100
    backends = [] if candidate is None else [_local(candidate, region, candidate_percent)]
    if live is not None:
        backends.append(_local(live, region, rest))
        rest = 0
    for remote in remotes:
        backends.append(_remote(remote, rest))
        rest = 0
    compared = live is not None and candidate is not None
    return Route(
        model=model,
        backends=backends,
        reason=None if backends else reason or "no region serves this model",
        classes=classes or next((remote.classes for remote in remotes if remote.classes), []),
        mirror_to=backend_id(live.release, region) if live is not None and compared else None,
    )


def _local(server: LocalServer, region: str, weight: int) -> Backend:
    return Backend(
        id=backend_id(server.release, region),
        release=server.release,
        version=server.version,
        region=region,
        url=server.url,
        remote=False,
        weight=weight,
    )


def _remote(remote: RemoteModel, weight: int) -> Backend:
    return Backend(
        id=backend_id(remote.release, remote.region),
        release=remote.release,
        version=remote.version,
        region=remote.region,
        url=remote.gateway_url,
        remote=True,
        weight=weight,
    )


class TrafficBackend(Protocol):
    """Whatever moves weights: our gateway, or an adapter to another one."""

    async def set_route(self, route: Route) -> None:
        """Put a route in force; returns once it is. Raises Unreachable or BadUpstream."""
        ...

    async def stats(self, model: str) -> Snapshot:
        """The model's counters; raises Unreachable or BadUpstream."""
        ...


class GatewayTraffic:
    """This project's gateway, through its admin API. Each call opens its own connection."""

    def __init__(self, gateway_url: str, token: str) -> None:
        self._base = f"{gateway_url.rstrip('/')}/admin/v1"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def set_route(self, route: Route) -> None:
        await self._call("PUT", f"/routes/{quote(route.model, safe='')}", route.to_json())

    async def stats(self, model: str) -> Snapshot:
        answer = await self._call("GET", f"/stats/{quote(model, safe='')}")
        if not isinstance(answer, dict):
            raise BadUpstream("gateway's stats cannot be read", got=answer, expected="an object")
        return parse_snapshot(answer)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self._base + path, json=body, headers=self._headers) as response,
            ):
                answer = await response.json(content_type=None)
                if response.status >= 400:
                    raise error_from_json(response.status, answer)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as broken:
            got = str(broken) or type(broken).__name__
            raise Unreachable(f"gateway at {self._base} did not answer", got=got, expected="an answer") from broken
        except ValueError as broken:
            raise BadUpstream("gateway answered no JSON", got=str(broken), expected="JSON") from broken
