"""The gateway's ASGI application: what users may call. Inference comes first, everything else by table."""

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from serving.asgi import (
    Receive,
    Scope,
    Send,
    client_left,
    parse_json_object,
    read_body,
    respond,
    respond_error,
    respond_json,
)
from serving.errors import FlightpathError, InvalidInput, NotFound, RetryableError
from serving.gateway.admin import PREFIX as ADMIN_PREFIX
from serving.gateway.admin import Admin
from serving.gateway.admission import Admission
from serving.gateway.attempts import Books
from serving.gateway.calls import Call, error_headers, read_call, response_headers
from serving.gateway.completion_calls import CompletionCalls
from serving.gateway.completions import PATHS as COMPLETION_PATHS
from serving.gateway.feedback import HEADER as FEEDBACK
from serving.gateway.feedback_calls import FeedbackCalls
from serving.gateway.inference import Inference, Served
from serving.gateway.metrics import CONTENT_TYPE
from serving.gateway.peers import Peers
from serving.gateway.predict import ModelSignatures, build_infer_request, label_predictions
from serving.gateway.route_table import RouteTable
from serving.gateway.routing import RouteInForce, unserved, unserved_reason
from serving.gateway.status import PAGE, summarize
from serving.gateway.upstream import refusal_body
from serving.routes import Route

logger = logging.getLogger(__name__)
_MODELS: Final = "/v2/models/"
_INFER: Final = "/infer"
_READY: Final = "/ready"
_HEALTH: Final = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayLimits:
    max_body_bytes: int = 8 * 1024 * 1024
    """A larger request is answered 413."""
    body_timeout_s: float = 30.0
    """A client that sends its body slower than this is answered 504."""
    max_in_flight: int = 1024
    """Inference requests at a time; the next one is answered 503 at once instead of everybody late."""


class Gateway:
    """Routes each request to the part that owns it, and each error to its status."""

    def __init__(
        self,
        *,
        region: str,
        peers: Peers,
        table: RouteTable,
        inference: Inference,
        completions: CompletionCalls,
        admission: Admission,
        signatures: ModelSignatures,
        feedback: FeedbackCalls,
        books: Books,
        admin: Admin,
        limits: GatewayLimits,
    ) -> None:
        self._region = region
        self._peers = peers
        self._table = table
        self._inference = inference
        self._completions = completions
        self._admission = admission
        self._signatures = signatures
        self._books = books
        self._metrics = books.metrics
        self._admin = admin
        self._limits = limits
        self.ready = False
        self._calls: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            ("POST", "/v1/predict"): self._predict,
            ("POST", "/v1/feedback"): feedback,
            ("GET", "/v1/models"): self._list_models,
            ("GET", "/v1/status"): self._status,
            ("GET", "/"): self._status_page,
            ("GET", "/metrics"): self._render_metrics,
            ("GET", "/healthz"): self._live,
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/readyz"): self._readiness,
            ("GET", "/v2/health/ready"): self._readiness,
            ("GET", "/v2"): self._describe_server,
        }
        # The server leaves the body of an answer to HEAD out.
        self._calls.update({("HEAD", path): self._calls["GET", path] for path in _HEALTH})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        try:
            if path.startswith(_MODELS):
                await self._model_call(method, path.removeprefix(_MODELS), scope, receive, send)
            elif path in COMPLETION_PATHS:
                await self._completions(scope, receive, send)
            elif path.startswith(ADMIN_PREFIX):
                await self._admin(scope, receive, send)
            elif (method, path) in self._calls:
                await self._calls[method, path](scope, receive, send)
            else:
                raise NotFound("no such call", got=f"{method} {path}", expected="see docs/api.md")
        except FlightpathError as error:
            await respond_error(send, error)
        except Exception as fault:
            # A fault of ours, told in the one shape of errors; where an answer has begun this raises in turn.
            logger.exception("%s %s failed", method, path)
            await respond_error(send, FlightpathError("gateway failed", got=type(fault).__name__))

    # Inference

    async def _model_call(self, method: str, rest: str, scope: Scope, receive: Receive, send: Send) -> None:
        if method == "POST" and rest.endswith(_INFER):
            await self._infer(rest.removesuffix(_INFER), scope, receive, send)
        elif method in ("GET", "HEAD") and rest.endswith(_READY):
            await self._model_ready(self._table.find(rest.removesuffix(_READY)), send)
        elif method == "GET":
            call = read_call(scope, self._peers)
            await respond_json(send, 200, await self._signatures.of(self._table.find(rest), call))
        else:
            raise NotFound("no such call", got=f"{method} {_MODELS}{rest}", expected=f"POST {_MODELS}…{_INFER}")

    async def _infer(self, model: str, scope: Scope, receive: Receive, send: Send) -> None:
        async def relay(in_force: RouteInForce, call: Call) -> tuple[int, bytes, Served]:
            body = await self._read(scope, receive, self._limits.max_body_bytes)
            gone = functools.partial(client_left, scope)
            served = await self._inference.answer(in_force, body, call, gone=gone)
            if served.answer.status != 200:
                return served.answer.status, refusal_body(served.answer, FlightpathError.to_json), served
            return 200, served.answer.body, served

        await self._serve(model, scope, send, relay)

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = parse_json_object(await self._read(scope, receive, self._limits.max_body_bytes))
        model = document.get("model")
        if not isinstance(model, str) or "inputs" not in document:
            raise InvalidInput("predict request is malformed", got=sorted(document), expected="model and inputs")

        async def predict(in_force: RouteInForce, call: Call) -> tuple[int, Any, Served]:
            body = build_infer_request(document["inputs"], await self._signatures.of(in_force, call))
            gone = functools.partial(client_left, scope)
            label = functools.partial(label_predictions, classes=in_force.route.classes)
            served = await self._inference.answer(in_force, body, call, gone=gone, read=label)
            if served.answer.status != 200:
                return served.answer.status, refusal_body(served.answer, FlightpathError.to_json), served
            return 200, _prediction(in_force.route, call, served), served

        await self._serve(model, scope, send, predict)

    async def _serve(
        self,
        model: str,
        scope: Scope,
        send: Send,
        answer: Callable[[RouteInForce, Call], Awaitable[tuple[int, Any, Served]]],
    ) -> None:
        """Count, time and answer one inference request."""
        started, call, version = time.perf_counter(), read_call(scope, self._peers), ""
        try:
            with self._admission.enter():
                in_force = self._table.find(model)
                self._admission.check()
                status, body, served = await answer(in_force, call)
            version = str(served.origin.version)
        except FlightpathError as error:
            # An unknown model's name is a user's text and must not become a label.
            self._metrics.count_request(model if self._table.knows(model) else "", version, error.http_status)
            await respond_error(send, error, headers=error_headers(call))
            return
        self._metrics.count_request(model, version, status)
        if status == 200:
            self._metrics.observe_latency(model, version, time.perf_counter() - started)
        headers = response_headers(call, served.origin)
        if served.token is not None and isinstance(body, bytes):
            headers = (*headers, (FEEDBACK.encode(), served.token.text.encode()))
        await (respond if isinstance(body, bytes) else respond_json)(send, status, body, headers=headers)

    async def _read(self, scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
        return await read_body(scope, receive, limit_bytes=limit_bytes, timeout_s=self._limits.body_timeout_s)

    # What is served

    async def _list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        models = [
            describe_model(route, self._region, created=self._table.routed_at(route.model))
            for route in self._table.all()
        ]
        await respond_json(send, 200, {"object": "list", "data": models})

    async def _model_ready(self, in_force: RouteInForce, send: Send) -> None:
        route = in_force.route
        if not route.served:
            raise unserved(route)
        await respond_json(send, 200, {"name": route.model, "ready": True})

    async def _describe_server(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond_json(send, 200, {"name": "flightpath-gateway", "version": self._region, "extensions": []})

    # Health and figures

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond_json(send, 200, {"live": True, "region": self._region})

    async def _readiness(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (self.ready or self._table.all()):
            raise RetryableError("gateway has no routes yet", expected="routes from disk or from the agent")
        await respond_json(send, 200, {"ready": True, "region": self._region})

    async def _render_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        ejected = {
            (route.model, backend.id): self._books.ejection.ejected(route.model, backend)
            for route in self._table.all()
            for backend in route.backends
        }
        text = self._metrics.render(in_flight=self._admission.in_flight, ejected=ejected)
        await respond(send, 200, text, content_type=CONTENT_TYPE)

    async def _status(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond_json(send, 200, summarize(self._region, self._table.all(), self._books.ledger))

    async def _status_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, PAGE, content_type=b"text/html; charset=utf-8")


def _prediction(route: Route, call: Call, served: Served) -> dict[str, Any]:
    return {
        "request_id": call.request_id,
        "model": route.model,
        "version": served.origin.version,
        "release": served.origin.release,
        "region": served.origin.region,
        "predictions": served.read,
        "feedback_token": None if served.token is None else served.token.text,
    }


def describe_model(route: Route, region: str, *, created: int) -> dict[str, Any]:
    """One entry of `GET /v1/models`: a model object of OpenAI's API, and what we know beside it."""
    return {
        "id": route.model,
        "object": "model",
        "created": created,
        "owned_by": "flightpath",
        "region": region,
        "status": "ready" if route.served else "unavailable",
        "reason": None if route.served else unserved_reason(route),
        "versions": [
            {"release": b.release, "version": b.version, "weight": b.weight, "region": b.region} for b in route.backends
        ],
    }
