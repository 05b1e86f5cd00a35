"""What a request's headers say about it, and what the answer's headers say about who gave it.

Headers of users are untrusted: `x-flightpath-…` is believed with the peers' credential alone, and goes no further
than another region's gateway. So are those of an answer: what is malformed in them is not told on.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serving.asgi import Headers, Scope
from serving.gateway.peers import HEADER as CREDENTIAL
from serving.gateway.peers import Peers
from serving.routes import Backend

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,512}")
_NAME: Final = re.compile(r"[A-Za-z0-9._@:/+-]{1,300}")
_VERSION: Final = re.compile(r"[0-9]{1,9}")
_FEW: Final = re.compile(r"[0-9]")
_OURS: Final = b"x-flightpath-"
_READ: Final = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"via"})
TRIED: Final = "x-flightpath-tried"
"""In a request: how many model servers have had it already. In an answer that is none: how many had it behind us."""


@dataclass(slots=True)
class Call:
    """A request, as far as its headers go."""

    request_id: str
    peers: Peers
    hop: bool = False
    """Another region's gateway sent it, or it has been here before: it must not leave this region."""
    synthetic: bool = False
    """An agent replays it."""
    traceparent: str | None = None
    tracestate: str | None = None
    via: str | None = None
    tried: int = 0
    """Model servers that have had the request, those of another region included; fail-over counts on."""
    tried_before: int = 0
    """As many of them as a peer told of."""

    def headers_for(self, backend: Backend, *, synthetic: bool = False) -> dict[str, str]:
        """The headers for an attempt. A model server learns nothing of what only gateways tell one another."""
        headers = {"content-type": "application/json", "x-request-id": self.request_id}
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
            if self.tracestate is not None:
                headers["tracestate"] = self.tracestate
        if backend.remote:
            self._tell_gateway(headers, synthetic=synthetic or self.synthetic)
        return headers

    def _tell_gateway(self, headers: dict[str, str], *, synthetic: bool) -> None:
        headers["x-flightpath-hop"] = "1"
        step = f"1.1 {self.peers.pseudonym}"
        headers["via"] = step if self.via is None else f"{self.via}, {step}"
        if synthetic:
            headers["x-flightpath-synthetic"] = "1"
        if self.tried:
            headers[TRIED] = str(min(self.tried, 9))
        credential = self.peers.credential()
        if credential is not None:
            headers[CREDENTIAL] = credential


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave an answer."""

    region: str
    version: int
    release: str


def read_call(scope: Scope, peers: Peers) -> Call:
    """The request's id (made if none or a malformed one was given), its trace, and what a peer says about it."""
    request_id, call = None, Call("", peers)
    said: dict[bytes, str] | None = None
    for name, value in scope["headers"]:
        if name not in _READ:
            if name.startswith(_OURS):
                said = said or {}
                said[name] = value.decode("latin-1")
        elif name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            request_id = text
        elif name == b"traceparent" and _TRACEPARENT.fullmatch(text := value.decode("latin-1")):
            call.traceparent = text
        elif name == b"tracestate" and _PRINTABLE.fullmatch(text := value.decode("latin-1")):
            call.tracestate = text if call.tracestate is None else f"{call.tracestate},{text}"
        elif name == b"via" and _PRINTABLE.fullmatch(text := value.decode("latin-1")):
            call.via = text if call.via is None else f"{call.via}, {text}"
            # Believed from anybody: whoever writes it keeps its own request here, and loops end without a secret.
            call.hop = call.hop or f" {peers.pseudonym}," in f" {text},"
    call.request_id = request_id or secrets.token_hex(16)
    if said is not None and peers.believes(said.get(CREDENTIAL.encode())):
        call.hop = call.hop or b"x-flightpath-hop" in said
        call.synthetic = said.get(b"x-flightpath-synthetic") == "1"
        call.tried = call.tried_before = read_tried(said.get(TRIED.encode()), default=0)
    return call


def read_tried(told: str | None, *, default: int) -> int:
    """A number of servers as a header has it."""
    return int(told) if told is not None and _FEW.fullmatch(told) else default


def origin_of(backend: Backend, told: Mapping[str, str]) -> Origin:
    """The backend itself, or, for another region's gateway, what it says in its answer's headers if that holds."""
    if not backend.remote:
        return Origin(backend.region, backend.version, backend.release)
    region, release = told.get("x-flightpath-region", ""), told.get("x-flightpath-release", "")
    version = told.get("x-flightpath-version", "")
    return Origin(
        region if _NAME.fullmatch(region) else backend.region,
        int(version) if _VERSION.fullmatch(version) else backend.version,
        release if _NAME.fullmatch(release) else backend.release,
    )


def response_headers(call: Call, origin: Origin) -> Headers:
    return (
        (b"x-request-id", call.request_id.encode()),
        (b"x-flightpath-region", origin.region.encode()),
        (b"x-flightpath-version", b"%d" % origin.version),
        (b"x-flightpath-release", origin.release.encode()),
    )


def error_headers(call: Call) -> Headers:
    """Of an answer that is none; a gateway that sent the request learns how many servers had it."""
    identified = (b"x-request-id", call.request_id.encode())
    behind_us = b"%d" % min(9, call.tried - call.tried_before)
    return (identified, (TRIED.encode(), behind_us)) if call.hop else (identified,)
