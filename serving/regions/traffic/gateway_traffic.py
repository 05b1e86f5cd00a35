"""Routes of one region's gateway: what they are, what they should be, and how the gateway learns of them.

`plan_route` derives a model's route from what is live, what is being tried and who else serves the
model, so a route is never edited: it is computed anew and replaced whole.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp

from serving.counters import Snapshot, parse_snapshot
from serving.errors import BadUpstream, InvalidInput, Unreachable, error_from_json
from serving.regions.deciding.rollout_state import backend_id
from serving.regions.deciding.timing import DEFAULT_TIMING
from serving.regions.places.peers import RemoteModel
from serving.routes import Backend, Mirror, Route, parse_route


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """A release's server in this region."""

    release: str
    version: int
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A second server of this region beside the live one: a candidate, or what a watched version is compared with."""

    server: LocalServer
    percent: int
    """Its share of users' requests; 0: it answers copies alone."""
    mirror_share: float = 0.0
    """Share of the candidate's answers that the other one repeats."""
    shadow_share: float = 0.0
    """Share of the other's answers that the candidate repeats."""
    completions_share: float = 0.0
    is_candidate: bool = True
    """False when the live server is the one on trial: it is watched, and this one is the version before."""


def plan_route(
    model: str,
    *,
    region: str,
    live: LocalServer | None,
    beside: Beside | None,
    remotes: Sequence[RemoteModel],
    reason: str | None,
    classes: list[str],
) -> Route:
    """The route of `model`: the candidate's share, the rest to the live server or else to another region.

    With a live server the other regions stand by at weight 0: they answer when the local servers cannot.
    """
    rest = 100 if beside is None else 100 - beside.percent
    backends = [] if beside is None else [_local(beside.server, region, beside.percent)]
    if live is not None:
        backends.append(_local(live, region, rest))
        rest = 0
    for remote in remotes:
        backends.append(_remote(remote, rest))
        rest = 0
    return Route(
        model=model,
        backends=backends,
        reason=None if backends else reason or "no region serves this model",
        classes=classes or next((remote.classes for remote in remotes if remote.classes), []),
        mirror=None if live is None or beside is None else _mirror(live, beside, region),
    )


def _mirror(live: LocalServer, beside: Beside, region: str) -> Mirror | None:
    if beside.mirror_share == beside.shadow_share == beside.completions_share == 0:
        return None
    other = backend_id(beside.server.release, region)
    on_trial = backend_id(live.release, region)
    return Mirror(
        candidate=other if beside.is_candidate else on_trial,
        live=on_trial if beside.is_candidate else other,
        candidate_share=beside.mirror_share,
        live_share=beside.shadow_share,
        completions_share=beside.completions_share,
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

    async def routes(self) -> dict[str, Route]:
        """What is in force, by model, as far as it can be read; raises Unreachable or BadUpstream."""
        ...

    async def stats(self, model: str) -> Snapshot:
        """The model's counters; raises Unreachable or BadUpstream."""
        ...

    async def pairs(self, model: str, *, after: int) -> "Pairs":
        """Mirrored completions after number `after`; those up to it are forgotten. Raises as `stats` does."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """What candidate and live version said to the same question."""

    boot_id: str
    pairs: list[dict[str, Any]]
    """`seq`, `request`, `candidate`, `live`."""


class GatewayTraffic:
    """This project's gateway, through its admin API. Each call opens its own connection."""

    def __init__(
        self, gateway_url: str, token: Callable[[], str], *, timeout_s: float = DEFAULT_TIMING.gateway_timeout_s
    ) -> None:
        """`token` is asked at each call."""
        self._timeout_s = timeout_s
        self._base = f"{gateway_url.rstrip('/')}/admin/v1"
        self._token = token

    async def set_route(self, route: Route) -> None:
        await self._call("PUT", f"/routes/{quote(route.model, safe='')}", route.to_json())

    async def routes(self) -> dict[str, Route]:
        answer = await self._call("GET", "/routes")
        if not isinstance(answer, dict) or not isinstance(answer.get("routes"), list):
            raise BadUpstream("gateway's routes cannot be read", got=answer, expected="see docs/api.md")
        found = {}
        for raw in answer["routes"]:
            # One that cannot be read is not the one that is wanted.
            with contextlib.suppress(InvalidInput, KeyError, TypeError):
                found[str(raw["model"])] = parse_route(raw, model=raw["model"])
        return found

    async def stats(self, model: str) -> Snapshot:
        answer = await self._call("GET", f"/stats/{quote(model, safe='')}")
        if not isinstance(answer, dict):
            raise BadUpstream("gateway's stats cannot be read", got=answer, expected="an object")
        return parse_snapshot(answer)

    async def pairs(self, model: str, *, after: int) -> Pairs:
        answer = await self._call("GET", f"/pairs/{quote(model, safe='')}?after={after}")
        try:
            pairs = [dict(pair) for pair in answer["pairs"]]
            if any(not {"seq", "request", "candidate", "live"} <= set(pair) for pair in pairs):
                raise ValueError(pairs[:1])
            return Pairs(boot_id=str(answer["boot_id"]), pairs=pairs)
        except (KeyError, TypeError, ValueError) as broken:
            raise BadUpstream(
                "gateway's pairs cannot be read", got=repr(broken), expected="see docs/api.md"
            ) from broken

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self._base + path, json=body, headers=self._headers()) as response,
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
