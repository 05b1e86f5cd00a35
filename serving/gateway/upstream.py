"""One attempt at one backend: raw bytes there, raw bytes back, every failure named.

A failure is one of: Unreachable (no connection, or cut off), TimedOut, RetryableError (it answered
503) or BadUpstream (another 5xx, or a body that is no JSON). A keep-alive connection that the other side
closed while it lay in our pool is no failure: if nothing was received, the request is sent once more
on a fresh connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDictProxy
from pydantic_core import from_json
from yarl import URL

from serving.errors import BadUpstream, RetryableError, TimedOut, Unreachable
from serving.gateway.routing import Backend

_PARSED_BYTES: Final = 64 * 1024
_CHUNK_LIMIT: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamLimits:
    connect_timeout_s: float = 1.5
    """Above the second after which the kernel repeats a lost SYN, so that one that met a full accept queue
    does not fail a request; a model server on this machine or in this cluster that takes longer is gone."""
    attempt_timeout_s: float = 30.0
    """One attempt from connecting to the last byte."""
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
        limits = self._limits
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            timeout=aiohttp.ClientTimeout(total=limits.attempt_timeout_s, sock_connect=limits.connect_timeout_s),
        )

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

    async def _attempt(
        self, backend: Backend, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        try:
            try:
                answer = await self._exchange(self._pooled, method, url, body, headers)
            except (aiohttp.ClientConnectionError, ConnectionError) as lost:
                if not _was_stale(lost):
                    raise
                answer = await self._exchange(self._fresh, method, url, body, headers)
        except TimeoutError as slow:
            raise TimedOut(f"{backend.id} did not answer in time", got=type(slow).__name__) from slow
        except aiohttp.ClientPayloadError as cut:
            raise BadUpstream(f"{backend.id} broke off its answer", got=str(cut), expected="a whole body") from cut
        except (aiohttp.ClientConnectionError, OSError) as lost:
            raise Unreachable(f"{backend.id} is unreachable", got=str(lost) or type(lost).__name__) from lost
        except aiohttp.ClientError as broken:
            raise BadUpstream(f"{backend.id} does not speak HTTP", got=str(broken), expected="HTTP/1.1") from broken
        if answer.status == 503:
            raise RetryableError(f"{backend.id} is not ready", got=answer.body[:200].decode(errors="replace"))
        if answer.status >= 500:
            raise BadUpstream(f"{backend.id} failed", got=answer.status, expected="a status below 500")
        return answer

    async def _exchange(
        self, session: aiohttp.ClientSession, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
            return Answer(response.status, await self._read(response), response.headers)

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
