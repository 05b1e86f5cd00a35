"""A model server that speaks the protocol and misbehaves on order. Real sockets, real HTTP/1.1."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = {"model_name": "digits", "model_version": "1", "outputs": [{"name": "logits", "shape": [1, 10]}]}
METADATA = {"name": "digits", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]}

Behaviour = Callable[["Handler"], None]


def answer_class(index: int) -> Behaviour:
    """Answer that one row belongs to class `index`."""
    data = [float(position == index) for position in range(10)]
    document = {**ANSWER, "outputs": [{"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": data}]}
    return lambda handler: handler.reply(200, json.dumps(document).encode())


def table(data: bytes, shape: bytes) -> bytes:
    """An infer answer whose one output has these data, which need be no JSON."""
    return b'{"model_name":"digits","outputs":[{"name":"logits","shape":%s,"datatype":"FP32","data":%s}]}' % (
        shape,
        data,
    )


def answer_status(status: int, **headers: str) -> Behaviour:
    """An answer of this status; of `headers`, underscores are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    # A 204 has no body: what came behind it would be the next answer on the connection.
    body = b"" if status == 204 else b'{"error": {"code": "on_order"}}'
    return lambda handler: handler.reply(status, body, headers=named)


def answer_body(body: bytes, *, status: int = 200, content_type: str | None = None) -> Behaviour:
    headers = {} if content_type is None else {"content-type": content_type}
    return lambda handler: handler.reply(status, body, headers=headers)


def break_off(handler: "Handler") -> None:
    """Promise more than is sent, then close."""
    handler.reply(200, b'{"outputs": [', length=5000)
    handler.close_connection = True


def hang_up(handler: "Handler") -> None:
    """Close without a byte of an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def stall(seconds: float) -> Behaviour:
    def behave(handler: "Handler") -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return behave


def answer_then_close_silently(handler: "Handler") -> None:
    """Answer well, promise keep-alive, and close: the client's pool now holds a dead connection."""
    answer_class(3)(handler)
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FaultyServer"

    def do_GET(self) -> None:
        self.reply(200, json.dumps(METADATA).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((dict(self.headers.items()), body))
        self.server.paths.append(self.path)
        self.server.behaviour(self)

    def reply(
        self, status: int, body: bytes, *, length: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**self.server.extra_headers, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def start_stream(self, content_type: str = "text/event-stream; charset=utf-8") -> None:
        """Status and headers of a chunked answer; then `send_chunk`, then `end_stream`."""
        self.send_response(200)
        for name, value in {**self.server.extra_headers, "content-type": content_type}.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FaultyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    behaviour: Behaviour
    seen: list[tuple[dict[str, str], bytes]]
    extra_headers: dict[str, str]
    paths: list[str]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of these tests: no traceback for them."""


class FaultyBackend:
    """Use `with`. `behaviour` may change at any time; `seen` holds headers and body of each POST."""

    def __init__(self, behaviour: Behaviour, *, headers: dict[str, str] | None = None) -> None:
        self._server = FaultyServer(("127.0.0.1", 0), Handler)
        self._server.behaviour = behaviour
        self._server.seen = []
        self._server.paths = []
        self._server.extra_headers = headers or {}
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def seen(self) -> list[tuple[dict[str, str], bytes]]:
        return self._server.seen

    @property
    def paths(self) -> list[str]:
        """The path of each POST."""
        return self._server.paths

    def behave(self, behaviour: Behaviour) -> None:
        self._server.behaviour = behaviour

    def __enter__(self) -> "FaultyBackend":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
