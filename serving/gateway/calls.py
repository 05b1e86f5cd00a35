"""What a request's headers say about it, and what the answer's headers say about who gave it."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serving.asgi import Headers, Scope
from serving.gateway.routing import Backend

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as far as its headers go."""

    request_id: str
    hop: bool = False
    """Another region's gateway sent it: it must not leave this region."""
    synthetic: bool = False
    """An agent replays it."""
    traceparent: str | None = None

    def headers_for(self, backend: Backend) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-request-id": self.request_id}
        if backend.remote:
            headers["x-flightpath-hop"] = "1"
        if self.synthetic:
            headers["x-flightpath-synthetic"] = "1"
        if self.traceparent is not None:
            headers["traceparent"] = self.traceparent
        return headers


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave an answer."""

    region: str
    version: int
    release: str


def read_call(scope: Scope) -> Call:
    """The request's id (made if none or a malformed one was given), hop, synthetic mark and trace."""
    request_id, hop, synthetic, traceparent = None, False, False, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            request_id = text
        elif name == b"x-flightpath-hop":
            hop = True
        elif name == b"x-flightpath-synthetic":
            synthetic = value == b"1"
        elif name == b"traceparent" and _TRACEPARENT.fullmatch(text := value.decode("latin-1")):
            traceparent = text
    return Call(request_id or secrets.token_hex(16), hop, synthetic, traceparent)


def origin_of(backend: Backend, told: Mapping[str, str]) -> Origin:
    """The backend itself, or, for another region's gateway, what it says in its answer's headers."""
    if not backend.remote:
        return Origin(backend.region, backend.version, backend.release)
    version = told.get("x-flightpath-version", "")
    return Origin(
        told.get("x-flightpath-region", backend.region),
        int(version) if version.isascii() and version.isdigit() else backend.version,
        told.get("x-flightpath-release", backend.release),
    )


def response_headers(call: Call, origin: Origin) -> Headers:
    return (
        (b"x-request-id", call.request_id.encode()),
        (b"x-flightpath-region", origin.region.encode()),
        (b"x-flightpath-version", b"%d" % origin.version),
        (b"x-flightpath-release", origin.release.encode()),
    )
