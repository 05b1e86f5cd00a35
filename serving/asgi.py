"""The few ASGI pieces that the model server and the gateway share, with no framework between them.

A plain ASGI application costs a fraction of a framework's route, and the data plane pays that price
on every request. A body is read once, under a bound; every error leaves in the one JSON shape.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from pydantic_core import from_json, to_json

from serving.errors import FlightpathError, InvalidInput, Overloaded, TimedOut, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

ABORT = "flightpath.abort"
"""Key in a scope: a function that resets the connection."""
CLIENT_LEFT = "flightpath.client_left"
"""Key in a scope: a function that says whether the connection is closed."""
_JSON = (b"content-type", b"application/json")


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a request header; `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole request body; more than `limit_bytes` is TooLarge (413), a slow sender TimedOut (504)."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(declared, limit_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(receive, limit_bytes)
    except TimeoutError as slow:
        raise TimedOut("request body did not arrive in time", expected=f"within {timeout_s:g} s") from slow


async def _collect(receive: Receive, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidInput("request body is incomplete", got=f"{size} bytes", expected="a whole body")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(f"more than {limit_bytes}", limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunk if len(chunks) == 1 else b"".join(chunks)


def _too_large(got: str, limit_bytes: int) -> TooLarge:
    return TooLarge("request body is too large", got=f"{got} bytes", expected=f"<= {limit_bytes} bytes")


def parse_json_object(body: bytes) -> dict[str, Any]:
    """A JSON object without NaN or infinity, or InvalidInput."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as broken:
        raise InvalidInput("body is not JSON", got=str(broken), expected="a JSON object") from broken
    if not isinstance(value, dict):
        raise InvalidInput("body is not a JSON object", got=type(value).__name__, expected="an object")
    return value


def abort(scope: Scope) -> None:
    """Reset the request's connection, for a client that takes nothing; only `WebServer` offers it."""
    reset: Callable[[], None] | None = scope.get(ABORT)
    if reset is not None:
        reset()


def client_left(scope: Scope) -> bool:
    """Whether the client closed its connection, as far as is known; only `WebServer` can tell."""
    left: Callable[[], bool] | None = scope.get(CLIENT_LEFT)
    return left is not None and left()


async def respond(
    send: Send, status: int, body: bytes, *, headers: Headers = (), content_type: bytes | None = None
) -> None:
    """One response with a body that is at hand; JSON unless `content_type` says otherwise."""
    kind = _JSON if content_type is None else (b"content-type", content_type)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, value: Any, *, headers: Headers = ()) -> None:
    await respond(send, status, to_json(value), headers=headers)


async def respond_error(send: Send, error: FlightpathError, *, headers: Headers = ()) -> None:
    """The error's own status and body; a retryable one also says when to come back."""
    await respond(send, error.http_status, to_json(error.to_json()), headers=[*headers, *retry_after(error)])


def retry_after(error: FlightpathError) -> list[tuple[bytes, bytes]]:
    """The header that says when to come back: as an overloaded server gave it, else after a second."""
    given = error.retry_after if isinstance(error, Overloaded) else None
    if given is None and error.http_status != 503:
        return []
    return [(b"retry-after", (given or "1").encode())]
