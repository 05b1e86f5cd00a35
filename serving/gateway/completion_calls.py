"""`/v1/chat/completions` and `/v1/completions`: language models over the same routes as every other request.

A client that leaves ends its request at the model server at once. A stream that breaks
off after its first token ends with one error event and without `[DONE]`: it cannot look like an answer.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic_core import to_json

from serving.asgi import Receive, Scope, Send, abort, read_body, respond, retry_after
from serving.errors import FlightpathError, NotFound
from serving.gateway.admission import Admission
from serving.gateway.attempts import LEFT, Attempt, FailOver
from serving.gateway.calls import Call, Origin, error_headers, origin_of, read_call, response_headers
from serving.gateway.completion_mirror import CompletionMirror
from serving.gateway.completions import (
    CompletionRequest,
    StreamJudge,
    Usage,
    error_document,
    judge_answer,
    parse_request,
)
from serving.gateway.lateness import Kind
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.peers import Peers
from serving.gateway.route_table import RouteTable
from serving.gateway.sse import CONTENT_TYPE, encode_event
from serving.gateway.streaming import ClientTooSlow, CompletionStream, Refused, StreamLimits
from serving.gateway.upstream import Answer, Upstream, refusal_body
from serving.routes import Route

T = TypeVar("T")

CLIENT_LEFT: Final = 499
"""The code under which requests are counted whose client did not wait for the end (nginx's number for it)."""
_STREAM_HEADERS: Final = (
    (b"content-type", f"{CONTENT_TYPE}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache"),
    # Asks proxies in front of us not to collect what we send piece by piece.
    (b"x-accel-buffering", b"no"),
)


class ClientLeft(Exception):
    """The client closed its connection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyLimits:
    max_bytes: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Whole:
    """An answer at hand."""

    status: int
    body: bytes
    origin: Origin
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A stream whose first token is at hand, and its attempt, still open."""

    stream: CompletionStream
    judge: StreamJudge
    attempt: Attempt
    origin: Origin
    first_token_s: float
    repeat: Callable[[], None]
    """Has a whole answer's request mirrored."""


class CompletionCalls:
    """The two calls. Errors are answered in OpenAI's shape."""

    def __init__(
        self,
        *,
        peers: Peers,
        table: RouteTable,
        upstream: Upstream,
        fail_over: FailOver,
        mirror: CompletionMirror,
        metrics: GatewayMetrics,
        admission: Admission,
        body: BodyLimits,
        streams: StreamLimits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._peers = peers
        self._table = table
        self._upstream = upstream
        self._fail_over = fail_over
        self._mirror = mirror
        self._metrics = metrics
        self._admission = admission
        self._body = body
        self._streams = streams
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = read_call(scope, self._peers)
        with self._admission.enter():
            try:
                await self._answer(scope, receive, send, call)
            except FlightpathError as error:
                await respond_openai_error(send, error, call)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        model, started = "", self._clock()
        try:
            if scope["method"] != "POST":
                raise NotFound("no such call", got=f"{scope['method']} {scope['path']}", expected="POST")
            self._admission.check()
            body = await read_body(scope, receive, limit_bytes=self._body.max_bytes, timeout_s=self._body.timeout_s)
            request = parse_request(scope["path"], body)
            in_force = self._table.find(request.model)
            model = request.model
            work, kind = (self._begin, Kind.FIRST_TOKEN) if request.stream else (self._complete, Kind.COMPLETION)
            route = in_force.route
            answered = await unless_client_leaves(
                receive, self._fail_over.run(in_force, call, kind, lambda attempt: work(attempt, request, call, route))
            )
        except ClientLeft:
            self._metrics.count_request(model, "", CLIENT_LEFT)
            return
        except FlightpathError as error:
            # An unknown model's name is a user's text and must not become a label.
            self._metrics.count_request(model, "", error.http_status)
            raise
        if isinstance(answered, _Begun):
            await self._relay(scope, receive, send, call, answered, started)
        else:
            await self._send_whole(send, call, model, answered, started)

    # One attempt

    async def _complete(
        self, attempt: Attempt, request: CompletionRequest, call: Call, route: Route
    ) -> "_Whole | _Begun":
        backend, headers = attempt.backend, call.headers_for(attempt.backend)
        answer = await self._upstream.complete(backend, request.path, request.body, headers, timeout_s=attempt.bound_s)
        if answer.status != 200:
            return _refusal(attempt, answer)
        usage = judge_answer(answer.body)
        attempt.answered()
        self._mirror.consider(route, backend, request.path, request.body, call)
        return _Whole(200, answer.body, origin_of(backend, answer.headers), usage)

    async def _begin(self, attempt: Attempt, request: CompletionRequest, call: Call, route: Route) -> "_Whole | _Begun":
        backend, started = attempt.backend, self._clock()
        headers, timeout_s = call.headers_for(backend), min(attempt.bound_s, self._streams.first_token_s)
        opened = await self._upstream.stream(backend, request.path, request.body, headers, timeout_s=timeout_s)
        if isinstance(opened, Answer):
            return _refusal(attempt, opened)
        judge = StreamJudge(usage_wanted=request.usage_wanted)
        stream = CompletionStream(opened, judge, self._streams, clock=self._clock)
        origin = origin_of(backend, opened.headers)
        try:
            refused = await stream.begin(within_s=timeout_s - (self._clock() - started))
        except BaseException:
            await stream.close()
            raise
        if isinstance(refused, Refused):
            await stream.close()
            attempt.refused()
            return _Whole(refused.status, refused.body, origin)

        def repeat() -> None:
            self._mirror.consider(route, backend, request.path, request.body, call)

        return _Begun(stream, judge, attempt, origin, attempt.first_token(), repeat)

    # The answer

    async def _send_whole(self, send: Send, call: Call, model: str, answer: _Whole, started: float) -> None:
        version = str(answer.origin.version)
        self._metrics.count_request(model, version, answer.status)
        if answer.status == 200:
            self._metrics.observe_latency(model, version, self._clock() - started)
            self._count_tokens(model, version, answer.usage)
        await respond(send, answer.status, answer.body, headers=response_headers(call, answer.origin))

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, call: Call, begun: _Begun, started: float
    ) -> None:
        model, version = begun.attempt.model, str(begun.origin.version)
        self._metrics.observe_first_token(model, version, begun.first_token_s)
        try:
            headers = [*_STREAM_HEADERS, *response_headers(call, begun.origin)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            code, last = await self._relay_events(receive, send, begun)
            self._metrics.count_request(model, version, code)
            if code == 200:
                self._metrics.observe_latency(model, version, self._clock() - started)
            if code == CLIENT_LEFT:
                abort(scope)
                await _until_client_leaves(receive)
            else:
                await self._end_body(scope, send, last)
        finally:
            # Nothing to do after any of the ends above: the gateway itself ended the relay.
            begun.attempt.unknown()
            await begun.stream.close()

    async def _relay_events(self, receive: Receive, send: Send, begun: _Begun) -> tuple[int, bytes]:
        """Everything up to the stream's end: the code to count it under, and what is still to be sent."""
        attempt, version = begun.attempt, str(begun.origin.version)
        on_token = self._metrics.between_tokens(attempt.model, version)
        try:
            await unless_client_leaves(receive, begun.stream.relay(_body_sender(send), on_token))
        except FlightpathError as error:
            attempt.failed(error)
            return error.http_status, encode_event(to_json(error_document(error)))
        except (ClientLeft, ClientTooSlow):
            attempt.abandoned()
            return CLIENT_LEFT, b""
        finally:
            self._count_tokens(attempt.model, version, begun.judge.usage)
        attempt.answered()
        begun.repeat()
        return 200, b""

    async def _end_body(self, scope: Scope, send: Send, last: bytes) -> None:
        try:
            async with asyncio.timeout(self._streams.stall_s):
                await send({"type": "http.response.body", "body": last})
        except TimeoutError:
            abort(scope)

    def _count_tokens(self, model: str, version: str, usage: Usage | None) -> None:
        if usage is not None:
            self._metrics.count_tokens(model, version, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out)


def _refusal(attempt: Attempt, answer: Answer) -> _Whole:
    """What the model server says of a request that is wrong."""
    attempt.refused()
    return _Whole(answer.status, refusal_body(answer, error_document), origin_of(attempt.backend, answer.headers))


def _body_sender(send: Send) -> Callable[[bytes], Coroutine[Any, Any, None]]:
    async def send_on(wire: bytes) -> None:
        await send({"type": "http.response.body", "body": wire, "more_body": True})

    return send_on


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; cancels it and raises ClientLeft as soon as the client closes its connection."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_until_client_leaves(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel(LEFT)
        raise ClientLeft
    finally:
        leaving.cancel()
        # No message of its own: one that was given before must reach the attempt.
        if not working.cancelling():
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(working, leaving, return_exceptions=True)


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond_openai_error(send: Send, error: FlightpathError, call: Call) -> None:
    """The error's status, with a body that OpenAI's clients and ours can read."""
    headers = [*error_headers(call), *retry_after(error)]
    await respond(send, error.http_status, to_json(error_document(error)), headers=headers)
