"""The agent's HTTP API (docs/api.md): who may ask what, in whose name, and the shape of the answers.

Every answer but a stream is one JSON object; every error is a FlightpathError's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.asgi import parse_json_object, read_body
from serving.credentials import TokenFolder, bearer
from serving.errors import FlightpathError, InvalidInput, NotFound, Unauthorized
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.regional_rollbacks import RegionalRollbacks
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.leading.home import Home
from serving.regions.leading.promotion_orders import OVERRIDE, PromotionOrders
from serving.regions.leading.rollback_leader import RollbackLeader
from serving.regions.places.client import ON_BEHALF_OF
from serving.regions.registry.registry import Event, Registry
from serving.regions.servers.server_metrics import gather_metrics

_MAX_BODY_BYTES: Final = 1024 * 1024
_BODY_TIMEOUT_S: Final = 10.0
_STREAM_POLL_S: Final = 0.2
_HEARTBEAT_S: Final = 15.0
_MAX_CLAIM: Final = 200
_EXPOSITION: Final = "text/plain; version=0.0.4"
_PROMOTER: Final = ("promoter", "operator")
_READER: Final = ("promoter", "operator", "peer")
_NO_OVERRIDE: Final[Mapping[str, Any]] = {"frozen": False, "reason": None, "actor": None}

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentApi:
    """The handlers and what they speak to."""

    region: str
    home: Home
    tokens: TokenFolder
    """Read at each call, so that a token which was replaced on disk is in force at once."""
    registry: Registry
    rollouts: RolloutWorker
    rollbacks: RollbackWorker
    serving: ServingState
    promotions: PromotionOrders
    """Of the home region's agent, and so is the next."""
    rollback_leader: RollbackLeader
    regional_rollbacks: RegionalRollbacks
    describe_region: Callable[[], dict[str, Any]]
    metrics: AgentMetrics
    servers: Callable[[], Mapping[str, str]]
    """URL of each model server that answers, by release."""
    stuck: Callable[[], list[str]]
    """What makes no progress, in words."""
    stopping: asyncio.Event

    def app(self) -> Starlette:
        one, peer = "/v1/promotions/{id}", "/v1/peer/rollouts/{id}"
        return Starlette(
            routes=[
                self._route("PUT", one, self._put_promotion, _PROMOTER),
                self._route("GET", one, self._get_promotion, _PROMOTER),
                self._route("DELETE", one, self._abort_promotion, _PROMOTER),
                self._route("GET", f"{one}/events", self._stream_events, _PROMOTER),
                self._route("POST", f"{one}/pause", self._pause_promotion, _PROMOTER),
                self._route("POST", f"{one}/resume", self._resume_promotion, _PROMOTER),
                self._route("POST", f"{one}/promote", self._promote_now, ("operator",)),
                self._route("POST", f"{one}/retry", self._retry_promotion, _PROMOTER),
                self._route("GET", "/v1/promotions", self._list_promotions, _PROMOTER),
                self._route("PUT", "/v1/rollbacks/{id}", self._put_rollback, _PROMOTER),
                self._route("GET", "/v1/rollbacks/{id}", self._get_rollback, _PROMOTER),
                self._route("GET", "/v1/rollbacks", self._list_rollbacks, _PROMOTER),
                self._route("GET", "/v1/region", self._get_region, _READER),
                self._route("GET", "/v1/journal", self._get_journal, _READER),
                self._route("GET", "/v1/override", self._get_override, ("operator",)),
                self._route("PUT", "/v1/override", self._put_override, ("operator",)),
                self._route("GET", "/v1/home", self._get_home, _READER),
                self._route("PUT", "/v1/home", self._put_home, ("operator",)),
                self._route("PUT", "/v1/peer/home", self._learn_home, ("peer",)),
                self._route("GET", "/v1/peer/handover", self._hand_over, ("peer",)),
                self._route("PUT", peer, self._put_rollout, ("peer",)),
                self._route("GET", peer, self._get_rollout, ("peer",)),
                self._route("DELETE", peer, self._revert_rollout, ("peer",)),
                self._route("POST", f"{peer}/revert", self._revert_rollout, ("peer",)),
                self._route("PUT", "/v1/peer/rollbacks/{id}", self._put_region_rollback, ("peer",)),
                self._route("PUT", "/v1/peer/rollbacks/{id}/report", self._take_report, ("peer",)),
                self._route("GET", "/v1/peer/rollbacks/{id}", self._get_region_rollback, ("peer",)),
                self._route("GET", "/v1/peer/models", self._get_models, ("peer",)),
                Route("/livez", self._get_life),
                Route("/healthz", self._get_health),
                Route("/readyz", self._get_readiness),
                Route("/metrics", self._get_metrics),
                Route("/metrics/servers", self._get_server_metrics),
            ],
            exception_handlers={
                FlightpathError: _answer_error,
                HTTPException: _answer_http_error,
                Exception: _answer_bug,
            },
        )

    def _route(self, method: str, path: str, handler: Handler, roles: tuple[str, ...]) -> Route:
        async def guarded(request: Request) -> Response:
            request.state.actor = self._authorize(request, roles)
            return await handler(request)

        return Route(path, guarded, methods=[method])

    def _authorize(self, request: Request, roles: tuple[str, ...]) -> str:
        """Who asks: the token's role, and for whom its holder says to speak."""
        given = bearer(request.headers.get("authorization"))
        # Every token is compared, so that the time taken tells nothing about which role came close.
        matches = [role for role in roles if self.tokens.opens(role, given)]
        if not matches:
            got = "another token" if given else "no token"
            raise Unauthorized("this call needs a token", got=got, expected=f"a token of role {' or '.join(roles)}")
        return name_actor(matches[0], request.headers.get(ON_BEHALF_OF))

    # Promotions

    async def _led(self) -> PromotionOrders:
        """Raises Fenced, which names the home region's agent, where this one does not lead."""
        await self.registry.run(self.home.require)
        return self.promotions

    async def _put_promotion(self, request: Request) -> Response:
        home, order = await self._led(), await _body(request)
        promotion, new = await home.order(request.path_params["id"], order, actor=request.state.actor)
        return JSONResponse(promotion, status_code=201 if new else 200)

    async def _get_promotion(self, request: Request) -> Response:
        return JSONResponse(await (await self._led()).show(request.path_params["id"]))

    async def _abort_promotion(self, request: Request) -> Response:
        return JSONResponse(await (await self._led()).abort(request.path_params["id"], actor=request.state.actor))

    async def _pause_promotion(self, request: Request) -> Response:
        return JSONResponse(await (await self._led()).pause(request.path_params["id"], actor=request.state.actor))

    async def _resume_promotion(self, request: Request) -> Response:
        return JSONResponse(await (await self._led()).resume(request.path_params["id"], actor=request.state.actor))

    async def _promote_now(self, request: Request) -> Response:
        return JSONResponse(await (await self._led()).promote(request.path_params["id"], actor=request.state.actor))

    async def _retry_promotion(self, request: Request) -> Response:
        promotion, new = await (await self._led()).retry(request.path_params["id"], actor=request.state.actor)
        return JSONResponse(promotion, status_code=201 if new else 200)

    async def _list_promotions(self, request: Request) -> Response:
        return JSONResponse({"promotions": await (await self._led()).newest(request.query_params.get("model"))})

    async def _stream_events(self, request: Request) -> Response:
        home, id = await self._led(), request.path_params["id"]
        await home.show(id)
        since = _count("since", request.headers.get("last-event-id") or request.query_params.get("since", "0"))
        headers = {"cache-control": "no-store"}
        return StreamingResponse(self._events(home, id, since), media_type="text/event-stream", headers=headers)

    async def _events(self, home: PromotionOrders, id: str, since: int) -> AsyncIterator[str]:
        """The promotion's journal as server-sent events until it has finished; following keeps its lease."""
        loop = asyncio.get_running_loop()
        spoke = loop.time()
        while not self.stopping.is_set():
            # Asked before the journal is read: what was written until it finished is in the journal.
            running = await home.running(id)
            await home.show(id)
            for entry in await self.registry.run(self.registry.events, since=since, kind="promotion", subject=id):
                since, spoke = entry["seq"], loop.time()
                yield f"id: {since}\nevent: {entry['kind']}\ndata: {json.dumps(entry)}\n\n"
            if not running or not await self.registry.run(lambda: self.home.leads):
                return
            if loop.time() - spoke > _HEARTBEAT_S:
                spoke = loop.time()
                yield ": still running\n\n"
            await asyncio.sleep(_STREAM_POLL_S)

    # Rollbacks

    async def _put_rollback(self, request: Request) -> Response:
        order = await _body(request)
        taker = await self._rollbacks()
        rollback, new = await taker.order(request.path_params["id"], order, actor=request.state.actor)
        return JSONResponse(rollback, status_code=201 if new else 200)

    async def _get_rollback(self, request: Request) -> Response:
        return JSONResponse(await (await self._rollbacks()).show(request.path_params["id"]))

    async def _list_rollbacks(self, request: Request) -> Response:
        model = request.query_params.get("model")
        return JSONResponse({"rollbacks": await (await self._rollbacks()).newest(model)})

    async def _rollbacks(self) -> RollbackLeader | RegionalRollbacks:
        return self.rollback_leader if await self.registry.run(lambda: self.home.leads) else self.regional_rollbacks

    async def _take_report(self, request: Request) -> Response:
        report = await _body(request)
        return JSONResponse(await self.rollback_leader.report_rollback(request.path_params["id"], report))

    # Which region leads

    async def _get_home(self, request: Request) -> Response:
        return JSONResponse(await self.home.show())

    async def _put_home(self, request: Request) -> Response:
        order = await _body(request)
        force, reason = order.get("force", False), order.get("reason")
        if set(order) - {"force", "reason"} or not isinstance(force, bool) or not isinstance(reason, str):
            raise InvalidInput("order is malformed", got=order, expected='{"reason": str, "force": bool}')
        return JSONResponse(await self.home.take(force=force, reason=reason, actor=request.state.actor))

    async def _learn_home(self, request: Request) -> Response:
        return JSONResponse(await self.home.learn(await _body(request)))

    async def _hand_over(self, request: Request) -> Response:
        return JSONResponse(await self.home.handover())

    # The region

    async def _get_region(self, request: Request) -> Response:
        return JSONResponse(await self.registry.run(self.describe_region))

    async def _get_journal(self, request: Request) -> Response:
        since = _count("since", request.query_params.get("since", "0"))
        return JSONResponse({"events": await self.registry.run(self.registry.events, since=since)})

    async def _get_override(self, request: Request) -> Response:
        return JSONResponse(await self.registry.run(self.registry.override, OVERRIDE) or _NO_OVERRIDE)

    async def _put_override(self, request: Request) -> Response:
        override = await _body(request)
        frozen, reason = override.get("frozen"), override.get("reason")
        if set(override) - {"frozen", "reason"} or not isinstance(frozen, bool) or not isinstance(reason, str | None):
            raise InvalidInput("override is malformed", got=override, expected='{"frozen": bool, "reason": str | null}')
        value = {"frozen": frozen, "reason": reason, "actor": request.state.actor}
        message = f"promotions are {'frozen' if frozen else 'allowed'} by {request.state.actor}"
        event = Event(kind="override", subject=OVERRIDE, message=message, detail=value)
        await self.registry.run(self.registry.set_override, OVERRIDE, value, event)
        return JSONResponse(value)

    # Peers

    async def _put_rollout(self, request: Request) -> Response:
        order = await _body(request)
        return JSONResponse(await self.rollouts.put_rollout(request.path_params["id"], order))

    async def _get_rollout(self, request: Request) -> Response:
        return JSONResponse(await self.rollouts.get_rollout(request.path_params["id"]))

    async def _revert_rollout(self, request: Request) -> Response:
        body = await _body(request)
        reason = str(body.get("reason") or "taken back by the home region")
        return JSONResponse(await self.rollouts.revert_rollout(request.path_params["id"], reason, body.get("epoch")))

    async def _put_region_rollback(self, request: Request) -> Response:
        order = await _body(request)
        return JSONResponse(await self.rollbacks.put_region_rollback(request.path_params["id"], order))

    async def _get_region_rollback(self, request: Request) -> Response:
        return JSONResponse(await self.rollbacks.get_region_rollback(request.path_params["id"]))

    async def _get_models(self, request: Request) -> Response:
        models = await self.registry.run(self.serving.served_here)
        return JSONResponse({"region": self.region, "models": models})

    # Probes

    async def _get_life(self, request: Request) -> Response:
        """Whether the process answers: what a restart could mend."""
        return PlainTextResponse("alive\n")

    async def _get_health(self, request: Request) -> Response:
        """Whether everything that runs in the background makes progress; what does not, by name."""
        stuck = self.stuck()
        return PlainTextResponse("".join(f"{said}\n" for said in stuck) or "ok\n", status_code=503 if stuck else 200)

    async def _get_readiness(self, request: Request) -> Response:
        if self.stopping.is_set():
            return PlainTextResponse("stopping\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def _get_metrics(self, request: Request) -> Response:
        body = self.metrics.render(await self.registry.run(self.rollouts.recent))
        return Response(body, media_type=_EXPOSITION)

    async def _get_server_metrics(self, request: Request) -> Response:
        return Response(await gather_metrics(self.servers()), media_type=_EXPOSITION)


def name_actor(role: str, on_behalf_of: str | None) -> str:
    """Who asked, for journal and reports: the role whose token was shown, and what its holder says of itself.

    Raises InvalidInput for a claim that is no short line of text.
    """
    if on_behalf_of is None:
        return role
    claim = on_behalf_of.strip()
    if not claim or len(claim) > _MAX_CLAIM or not claim.isprintable():
        raise InvalidInput(
            f"{ON_BEHALF_OF} is malformed", got=on_behalf_of, expected=f"1 to {_MAX_CLAIM} printable characters"
        )
    return f"{role} for {claim}"


async def _body(request: Request) -> dict[str, Any]:
    return parse_json_object(
        await read_body(request.scope, request.receive, limit_bytes=_MAX_BODY_BYTES, timeout_s=_BODY_TIMEOUT_S)
    )


def _count(name: str, value: str) -> int:
    if not value.isdecimal() or len(value) > 18:
        raise InvalidInput(f"{name} is malformed", got=value, expected="a number >= 0")
    return int(value)


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, FlightpathError)
    return JSONResponse(error.to_json(), status_code=error.http_status)


async def _answer_bug(_: Request, error: Exception) -> Response:
    """Starlette raises it again for the log; the caller learns no more than its kind."""
    bug = FlightpathError("the agent failed on this call", got=type(error).__name__, expected="see its log")
    return JSONResponse(bug.to_json(), status_code=500)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in the same shape."""
    assert isinstance(error, HTTPException)
    got = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        body = InvalidInput("method is not allowed here", got=got, expected="a call of docs/api.md").to_json()
    else:
        body = NotFound("no such call", got=got, expected="a call of docs/api.md").to_json()
    return JSONResponse(body, status_code=error.status_code)
