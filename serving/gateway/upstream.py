"""One attempt at one backend: raw bytes there, raw bytes back, whole or as they come, every failure named.

A failure is one of: NotConnected, Unreachable (cut off before an answer), TimedOut, Overloaded (it answered
503 or 429) or BadUpstream (an answer that `blame.py` calls the server's fault). A keep-alive connection that the
other side closed while it lay in our pool is no failure: if nothing was received, the request is sent once more
on a fresh connection. On a connection that was new the server may have worked on it: there it is not.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDictProxy
from pydantic_core import from_json, to_json
from yarl import URL

from serving.errors import (
    BadUpstream,
    FlightpathError,
    InvalidInput,
    NotConnected,
    RetryableError,
    TimedOut,
    TooLarge,
    Unprocessable,
    Unreachable,
)
from serving.gateway import blame
from serving.gateway.answers import judge_infer
from serving.gateway.blame import Api
from serving.gateway.calls import TRIED, read_tried
from serving.gateway.sse import CONTENT_TYPE as SSE_CONTENT_TYPE
from serving.routes import Backend

_CHUNK_LIMIT: Final = 1024 * 1024
_TRAILER_S: Final = 0.25
_ALIVE_S: Final = 1.0
_JSON: Final = re.compile(r"application/(?:[a-z0-9.-]+\+)?json")
_RETRY_AFTER: Final = re.compile(r"[0-9]{1,9}|[A-Za-z]{3}, [0-9A-Za-z :]{8,40}")
_DIALLED: ContextVar[list[bool] | None] = ContextVar("dialled", default=None)
"""Gets an entry when the request that is being sent opens a connection of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamLimits:
    connect_timeout_s: float = 1.5
    """Above the second after which the kernel repeats a lost SYN, so that one that met a full accept queue
    does not fail a request; a model server on this machine or in this cluster that takes longer is gone."""
    attempt_timeout_s: float = 30.0
    """One attempt of the Open Inference Protocol, from connecting to the last byte, at most (lateness.py)."""
    completion_timeout_s: float = 600.0
    """The same for an answer of a language model that is not streamed: thousands of tokens take minutes."""
    metadata_timeout_s: float = 2.0
    """A model's metadata are at hand: whoever needs longer is asked for nothing now."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """A larger answer is a broken one."""
    keep_alive_s: float = 20.0
    """Idle connections are dropped before the model server (75 s) would drop them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: a success, or a refusal of the request."""

    status: int
    body: bytes
    headers: CIMultiDictProxy[str]
    classes: list[int] | None = None
    """What an infer answer predicts for each row, if it is a table of scores and small enough to read."""


class AnswerStream:
    """An answer with status 200 whose body is still coming. `finish` or `close` it in any case."""

    def __init__(self, backend: Backend, response: aiohttp.ClientResponse) -> None:
        self._backend = backend
        self._response = response
        self.headers = response.headers

    async def read(self) -> bytes:
        """What has arrived, at least a byte; empty at the end. Waits for ever: the caller bounds it."""
        # Once for each token: no context manager and no timer here.
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as failed:
            raise _name(self._backend, failed) from failed

    async def finish(self) -> None:
        """Keep the connection for the next request if the body ends at once, as it should."""
        try:
            async with asyncio.timeout(_TRAILER_S):
                while await self._response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            self.close()
        else:
            self._response.release()

    def close(self) -> None:
        """Cut the connection, unless the body was read to its end: the model server stops generating."""
        self._response.close()


class Upstream:
    """The connection pools. Use `async with`."""

    def __init__(self, limits: UpstreamLimits | None = None) -> None:
        self._limits = limits or UpstreamLimits()

    async def __aenter__(self) -> "Upstream":
        self._pooled = self._open(
            aiohttp.TCPConnector(limit=0, keepalive_timeout=self._limits.keep_alive_s, socket_factory=_dial)
        )
        self._fresh = self._open(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pooled.close()
        await self._fresh.close()

    def _open(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    def _timeout(self, total_s: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=total_s, sock_connect=self._limits.connect_timeout_s)

    async def infer(
        self, backend: Backend, model: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """POST a v2 infer request."""
        url = URL(f"{backend.url}/v2/models/{model}/infer", encoded=True)
        timeout_s = min(timeout_s, self._limits.attempt_timeout_s)
        answer = await self._ask(Api.INFER, backend, "POST", url, body, headers, timeout_s)
        if answer.status != 200:
            return answer
        return Answer(200, answer.body, answer.headers, judge_infer(answer.body))

    async def metadata(self, backend: Backend, model: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The model's metadata, `GET /v2/models/{model}`."""
        url, timeout_s = URL(f"{backend.url}/v2/models/{model}", encoded=True), self._limits.metadata_timeout_s
        answer = await self._ask(Api.METADATA, backend, "GET", url, None, headers, timeout_s)
        try:
            document = from_json(answer.body, allow_inf_nan=False)
        except ValueError as broken:
            raise BadUpstream(f"{backend.id} answered broken metadata", got=str(broken), expected="JSON") from broken
        if not isinstance(document, dict):
            raise BadUpstream(f"{backend.id} has no metadata", got=document, expected="a JSON object")
        return document

    async def complete(
        self, backend: Backend, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """POST to an OpenAI API and wait for the whole answer."""
        url, timeout_s = URL(f"{backend.url}{path}", encoded=True), min(timeout_s, self._limits.completion_timeout_s)
        return await self._ask(Api.COMPLETION, backend, "POST", url, body, headers, timeout_s)

    async def stream(
        self, backend: Backend, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> AnswerStream | Answer:
        """POST to an OpenAI API and give the open stream, or the whole answer if the request was refused.

        TimedOut if the answer has not begun after `timeout_s`.
        """
        url = URL(f"{backend.url}{path}", encoded=True)
        with _named(backend):
            async with asyncio.timeout(timeout_s):
                response = await self._send("POST", url, body, headers, self._timeout(None))
                if response.status == 200:
                    return _check_stream(backend, response)
                async with response:
                    answer = Answer(response.status, await self._read(response), response.headers)
        _check(Api.STREAM, backend, answer)
        return answer

    async def lives(self, backend: Backend) -> bool:
        """Whether the server says anything at all."""
        url = URL(f"{backend.url}/v2/health/live", encoded=True)
        try:
            async with self._fresh.get(url, timeout=self._timeout(_ALIVE_S), allow_redirects=False):
                return True
        except (aiohttp.ClientError, OSError):
            return False

    async def _ask(
        self,
        api: Api,
        backend: Backend,
        method: str,
        url: URL,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> Answer:
        with _named(backend):
            response = await self._send(method, url, body, headers, self._timeout(timeout_s))
            async with response:
                answer = Answer(response.status, await self._read(response), response.headers)
        _check(api, backend, answer)
        return answer

    async def _send(
        self,
        method: str,
        url: URL,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The response once its headers are here."""
        dialled: list[bool] = []
        _DIALLED.set(dialled)
        try:
            return await self._pooled.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientConnectionError, ConnectionError) as lost:
            if dialled or not _was_stale(lost):
                raise
            return await self._fresh.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit = self._limits.max_answer_bytes
        if response.content_length is not None and response.content_length <= _CHUNK_LIMIT:
            return await response.read()
        chunks = bytearray()
        async for chunk in response.content.iter_any():
            chunks += chunk
            if len(chunks) > limit:
                raise BadUpstream("answer is too large", got=f"> {limit} bytes", expected=f"<= {limit} bytes")
        return bytes(chunks)


@contextmanager
def _named(backend: Backend) -> Iterator[None]:
    """Gives every failure of the HTTP client its name of ours."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as failed:
        raise _name(backend, failed) from failed


def refusal_body(answer: Answer, shape: Callable[[FlightpathError], dict[str, Any]]) -> bytes:
    """What a server says of a wrong request; what is no JSON is quoted in an error of the given shape."""
    try:
        from_json(answer.body, allow_inf_nan=False)
    except ValueError:
        said = answer.body[:200].decode(errors="replace")
        kinds: dict[int, type[InvalidInput]] = {413: TooLarge, 422: Unprocessable}
        return to_json(shape(kinds.get(answer.status, InvalidInput)("model server refuses the request", got=said)))
    return answer.body


def _dial(address: tuple[Any, ...]) -> socket.socket:
    """A socket for a new connection, as aiohttp makes them; the request that needs one is told."""
    dialled = _DIALLED.get()
    if dialled is not None:
        dialled.append(True)
    family, kind, protocol = address[:3]
    return socket.socket(family, kind, protocol)


def _name(backend: Backend, failed: Exception) -> RetryableError:
    """The failure in our terms. TimeoutError is an OSError, and aiohttp's own timeouts are both."""
    if isinstance(failed, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotConnected(f"{backend.id} is unreachable", got=str(failed) or type(failed).__name__)
    if isinstance(failed, TimeoutError):
        return TimedOut(f"{backend.id} did not answer in time", got=type(failed).__name__)
    if isinstance(failed, aiohttp.ClientPayloadError):
        return BadUpstream(f"{backend.id} broke off its answer", got=str(failed), expected="a whole body")
    if isinstance(failed, aiohttp.ClientConnectionError | OSError):
        return Unreachable(f"{backend.id} broke the connection off", got=str(failed) or type(failed).__name__)
    return BadUpstream(f"{backend.id} does not speak HTTP", got=str(failed), expected="HTTP/1.1")


def _check(api: Api, backend: Backend, answer: Answer) -> None:
    """Raises what the table of blame says of this status and content type; nothing if the answer may be one."""
    verdict = blame.of_status(api, answer.status)
    if not verdict.elsewhere:
        if answer.status == 200:
            _check_json(backend, answer.headers)
        return
    told = answer.headers.get("retry-after")
    error = blame.error_of(
        verdict,
        answer.status,
        f"{backend.id} failed" if verdict is blame.FAILED else f"{backend.id} has no room",
        got=f"HTTP {answer.status}: {answer.body[:200].decode(errors='replace')}",
        retry_after=told if told is not None and _RETRY_AFTER.fullmatch(told) else None,
    )
    if backend.remote:
        error.servers = read_tried(answer.headers.get(TRIED), default=1)
    raise error


def _check_json(backend: Backend, headers: CIMultiDictProxy[str]) -> None:
    """A body that says it is something else is none; one that says nothing is looked at."""
    kind = headers.get("content-type")
    if kind is None or kind == "application/json":
        return
    if _JSON.fullmatch(kind.partition(";")[0].strip().lower()) is None:
        raise BadUpstream(f"{backend.id} answered no JSON", got=kind, expected="application/json")


def _check_stream(backend: Backend, response: aiohttp.ClientResponse) -> AnswerStream:
    if response.content_type != SSE_CONTENT_TYPE:
        response.close()
        raise BadUpstream(f"{backend.id} answered no stream", got=response.content_type, expected=SSE_CONTENT_TYPE)
    return AnswerStream(backend, response)


def _was_stale(lost: Exception) -> bool:
    """Whether the connection ended before a byte of the answer came; a refused one is no stale one."""
    if isinstance(lost, aiohttp.ServerDisconnectedError):
        return isinstance(lost.message, str)
    if isinstance(lost, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError):
        return False
    return isinstance(lost, ConnectionError | aiohttp.ClientOSError)
