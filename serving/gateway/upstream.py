"""One attempt at one backend: raw bytes there, raw bytes back, whole or as they come, every failure named.

A failure is one of: Unreachable (no connection, or cut off), TimedOut, RetryableError (it answered
503 or 429) or BadUpstream (another 5xx, or a body that is no JSON). A keep-alive connection that the other side
closed while it lay in our pool is no failure: if nothing was received, the request is sent once more
on a fresh connection.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDictProxy
from pydantic_core import from_json
from yarl import URL

from serving.errors import BadUpstream, RetryableError, TimedOut, Unreachable
from serving.gateway.routing import Backend
from serving.gateway.sse import CONTENT_TYPE as SSE_CONTENT_TYPE

_PARSED_BYTES: Final = 64 * 1024
_CHUNK_LIMIT: Final = 1024 * 1024
_TRAILER_S: Final = 0.25
_OVERLOADED: Final = frozenset({429, 503})


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamLimits:
    connect_timeout_s: float = 1.5
    """Above the second after which the kernel repeats a lost SYN, so that one that met a full accept queue
    does not fail a request; a model server on this machine or in this cluster that takes longer is gone."""
    attempt_timeout_s: float = 30.0
    """One attempt of the Open Inference Protocol, from connecting to the last byte."""
    completion_timeout_s: float = 600.0
    """The same for an answer of a language model that is not streamed: thousands of tokens take minutes."""
    max_answer_bytes: int = 64 * 1024 * 1024
    """A larger answer is a broken one."""
    keep_alive_s: float = 20.0
    """Idle connections are dropped before the model server (75 s) would drop them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer with a status below 500."""

    status: int
    body: bytes
    headers: CIMultiDictProxy[str]


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
        self._pooled = self._open(aiohttp.TCPConnector(limit=0, keepalive_timeout=self._limits.keep_alive_s))
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

    async def infer(self, backend: Backend, model: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST a v2 infer request. A success whose body is not JSON is BadUpstream."""
        url = URL(f"{backend.url}/v2/models/{model}/infer", encoded=True)
        answer = await self._attempt(backend, "POST", url, body, headers)
        if answer.status == 200 and not _looks_like_infer_response(answer.body):
            raise BadUpstream(
                f"{backend.id} answered a broken body", got=answer.body[:80], expected="JSON with outputs"
            )
        if answer.status == 404 and backend.remote:
            raise BadUpstream(f"{backend.id} does not know the model", got=404, expected="an answer")
        return answer

    async def metadata(self, backend: Backend, model: str) -> dict[str, Any]:
        """The model's metadata, `GET /v2/models/{model}`."""
        headers = {"x-flightpath-hop": "1"} if backend.remote else {}
        url = URL(f"{backend.url}/v2/models/{model}", encoded=True)
        answer = await self._attempt(backend, "GET", url, None, headers)
        try:
            document = from_json(answer.body)
        except ValueError as broken:
            raise BadUpstream(f"{backend.id} answered broken metadata", got=str(broken), expected="JSON") from broken
        if answer.status != 200 or not isinstance(document, dict):
            raise BadUpstream(f"{backend.id} has no metadata", got=answer.status, expected="200 and a JSON object")
        return document

    async def complete(self, backend: Backend, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST to an OpenAI API and wait for the whole answer. A model that the server lacks is its failure."""
        url, timeout = URL(f"{backend.url}{path}", encoded=True), self._timeout(self._limits.completion_timeout_s)
        with _named(backend):
            response = await self._send("POST", url, body, headers, timeout)
            async with response:
                answer = Answer(response.status, await self._read(response), response.headers)
        return _check_completion(backend, answer)

    async def stream(
        self, backend: Backend, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> AnswerStream | Answer:
        """POST to an OpenAI API and give the open stream, or the whole answer if the status is not 200.

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
        return _check_completion(backend, answer)

    async def _attempt(
        self, backend: Backend, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        with _named(backend):
            response = await self._send(method, url, body, headers, self._timeout(self._limits.attempt_timeout_s))
            async with response:
                answer = Answer(response.status, await self._read(response), response.headers)
        return _check_status(backend, answer)

    async def _send(
        self,
        method: str,
        url: URL,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The response once its headers are here."""
        try:
            return await self._pooled.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientConnectionError, ConnectionError) as lost:
            if not _was_stale(lost):
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


def _name(backend: Backend, failed: Exception) -> RetryableError:
    """The failure in our terms. TimeoutError is an OSError, and aiohttp's own timeouts are both."""
    if isinstance(failed, TimeoutError):
        return TimedOut(f"{backend.id} did not answer in time", got=type(failed).__name__)
    if isinstance(failed, aiohttp.ClientPayloadError):
        return BadUpstream(f"{backend.id} broke off its answer", got=str(failed), expected="a whole body")
    if isinstance(failed, aiohttp.ClientConnectionError | OSError):
        return Unreachable(f"{backend.id} is unreachable", got=str(failed) or type(failed).__name__)
    return BadUpstream(f"{backend.id} does not speak HTTP", got=str(failed), expected="HTTP/1.1")


def _check_status(backend: Backend, answer: Answer) -> Answer:
    if answer.status in _OVERLOADED:
        raise RetryableError(f"{backend.id} is not ready", got=answer.body[:200].decode(errors="replace"))
    if answer.status >= 500:
        raise BadUpstream(f"{backend.id} failed", got=answer.status, expected="a status below 500")
    return answer


def _check_completion(backend: Backend, answer: Answer) -> Answer:
    """The route names the model, so a server that does not know it is a wrong one, not a wrong request."""
    if answer.status == 404:
        raise BadUpstream(f"{backend.id} does not know the model", got=404, expected="an answer")
    return _check_status(backend, answer)


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


def _looks_like_infer_response(body: bytes) -> bool:
    """A full check of small bodies; of large ones the ends alone, for they cost milliseconds to parse."""
    if len(body) > _PARSED_BYTES:
        return body.lstrip()[:1] == b"{" and body.rstrip()[-1:] == b"}"
    try:
        return isinstance(from_json(body)["outputs"], list)
    except (ValueError, KeyError, TypeError):
        return False
