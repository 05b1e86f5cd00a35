"""Runs an ASGI application on uvicorn, uvloop and httptools, and ends it without losing a request.

uvicorn's own shutdown closes idle keep-alive connections at once, which resets a client that is
just sending on one. Here draining first answers with `connection: close`, gives idle connections
a grace to be used a last time, and only then closes them.
"""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.asgi import ABORT, CLIENT_LEFT, App, Message, Receive, Scope, Send
from serving.errors import TooLarge

_BACKLOG = 2048
_POLL_S = 0.02
_DATE_STEP_S = 1.0
"""The Date header's resolution (RFC 9110, 5.6.7): uvicorn writes it anew on each tick."""
_MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLimits:
    """How long connections live."""

    keep_alive_s: float = 75.0
    """An idle connection is closed after this; longer than any client pool of ours keeps one."""
    idle_grace_s: float = 1.0
    """While draining, how long an idle connection may still be used for one last request."""
    drain_s: float = 30.0
    """While draining, how long running requests may take before the process leaves them."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a bound on a request's head, which it has none of: beyond it, 431 and the end."""

    _head_bytes = 0
    _in_head = True
    _refused = False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]
        self.scope[CLIENT_LEFT] = self.transport.is_closing  # type: ignore[literal-required]
        self._in_head = True

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        self._in_head, self._head_bytes = False, 0
        if size > _MAX_HEAD_BYTES:
            self._refuse()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()

    def _refuse(self) -> None:
        self._refused = True
        error = TooLarge("request head is too large", expected=f"<= {_MAX_HEAD_BYTES} bytes of headers")
        body = to_json(error.to_json())
        head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


class WebServer:
    """One listening socket and its connections. Call `start`, then `drain` once."""

    def __init__(self, app: App, limits: ServerLimits | None = None) -> None:
        self._app = app
        self._limits = limits or ServerLimits()
        self._draining = False
        self._ticker: asyncio.Task[None] | None = None
        self._sockets: list[socket.socket] = []
        config = uvicorn.Config(
            self._dispatch,
            interface="asgi3",
            http=BoundedHeadProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            # uvicorn hands the value to call_later, which takes fractions.
            timeout_keep_alive=self._limits.keep_alive_s,  # type: ignore[arg-type]
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    async def start(self, listener: socket.socket) -> None:
        """Accept on a socket that is bound (and may be listening already)."""
        self._sockets = [listener]
        await self._server.on_tick(0)
        await self._server.startup(sockets=self._sockets)
        self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        """Keep the Date header current."""
        while True:
            await asyncio.sleep(_DATE_STEP_S)
            await self._server.on_tick(0)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            # Asked when the answer starts, so that a request that began before draining closes as well.
            if self._draining and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_on)

    async def drain(self, *, idle_grace_s: float | None = None, drain_s: float | None = None) -> bool:
        """Stop accepting, finish what runs, close; False when requests were left behind at the bound."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        grace_s = self._limits.idle_grace_s if idle_grace_s is None else idle_grace_s
        bound_s = self._limits.drain_s if drain_s is None else drain_s
        self._stop_accepting()
        await self._wait_until_unconnected(started + grace_s)
        for connection in list(self._server.server_state.connections):
            connection.shutdown()
        finished = await self._wait_until_unconnected(started + grace_s + bound_s)
        if self._ticker is not None:
            self._ticker.cancel()
        return finished

    def _stop_accepting(self) -> None:
        self._draining = True
        for server in self._server.servers:
            server.close()
        for listener in self._sockets:
            listener.close()

    async def _wait_until_unconnected(self, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        state = self._server.server_state
        while state.connections or state.tasks:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True


def bind_listener(host: str, port: int) -> socket.socket:
    """A bound, not yet listening TCP socket. OSError if the address is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and SIGINT, in the running loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)


def report(event: str, **details: object) -> None:
    """One JSON line in the process's log. A log that takes nothing, as on a full disk, stops nobody's work."""
    with contextlib.suppress(OSError):
        print(json.dumps({"time": time.time(), "event": event, **details}), flush=True)


def run_on_uvloop(main: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine and return its exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
