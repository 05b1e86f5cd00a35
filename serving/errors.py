"""The errors of Flightpath, one tree, each able to say what was wrong, what it got and what it expected.

    FlightpathError
    ├── PermanentError          trying again cannot help
    │   ├── InvalidInput        a user's value is wrong (HTTP 400)
    │   │   ├── TooLarge        a body exceeds its bound (HTTP 413)
    │   │   └── Unprocessable   a value is well-formed, and the model cannot take it (HTTP 422)
    │   ├── NotFound            a named thing is not there (HTTP 404)
    │   ├── Conflict            the same id with another content, a lock held by another (HTTP 409)
    │   │   └── Fenced          whoever orders does not lead, or no longer (HTTP 409)
    │   ├── Unauthorized        no credential, or a wrong one (HTTP 401)
    │   ├── CorruptBundle       a digest, a size or a path does not hold (HTTP 422)
    │   └── UntrustedBundle     no attestation, or one that no trusted key signed (HTTP 422)
    └── RetryableError          the same call may succeed later (HTTP 503)
        ├── Unreachable         nobody answered at an address
        │   └── NotConnected    nobody took the connection: the request went nowhere
        ├── Overloaded          whoever was asked has no room now (HTTP 503)
        │   └── RateLimited     the same, told as a rate (HTTP 429)
        ├── BadUpstream         whoever answered behind us failed or answered rubbish (HTTP 502)
        └── TimedOut            the answer did not come in time (HTTP 504)

Retryable or permanent is the type, never a string to parse.
"""

from typing import Any, ClassVar

_SHOWN_CHARACTERS = 300


def _show(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


class FlightpathError(Exception):
    """The root. `str(error)` is one line: `what, got X, expected Y`."""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, got: object = None, expected: object = None) -> None:
        self.what = what
        self.got = None if got is None else _show(got)
        self.expected = None if expected is None else _show(expected)
        parts = [what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        super().__init__(", ".join(" ".join(part.split()) for part in parts))

    def to_json(self) -> dict[str, Any]:
        """The body that every HTTP API of Flightpath answers an error with."""
        return {
            "error": {
                "code": self.code,
                "message": str(self),
                "got": self.got,
                "expected": self.expected,
                "retryable": self.retryable,
            }
        }


class PermanentError(FlightpathError):
    code = "permanent"


class InvalidInput(PermanentError):
    code = "invalid_input"
    http_status = 400


class TooLarge(InvalidInput):
    code = "too_large"
    http_status = 413


class Unprocessable(InvalidInput):
    code = "unprocessable"
    http_status = 422


class NotFound(PermanentError):
    code = "not_found"
    http_status = 404


class Conflict(PermanentError):
    code = "conflict"
    http_status = 409


class Fenced(Conflict):
    code = "fenced"


class Unauthorized(PermanentError):
    code = "unauthorized"
    http_status = 401


class CorruptBundle(PermanentError):
    code = "corrupt_bundle"
    http_status = 422


class UntrustedBundle(PermanentError):
    code = "untrusted_bundle"
    http_status = 422


class RetryableError(FlightpathError):
    code = "unavailable"
    http_status = 503
    retryable = True
    servers: int = 1
    """Model servers that had the request before this was raised; another region's gateway may tell 0 or 2."""


class Unreachable(RetryableError):
    code = "unreachable"


class NotConnected(Unreachable):
    code = "not_connected"
    servers = 0


class Overloaded(RetryableError):
    code = "overloaded"

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, retry_after: str | None = None
    ) -> None:
        super().__init__(what, got=got, expected=expected)
        self.retry_after = retry_after
        """The header's value as whoever is overloaded gave it."""


class RateLimited(Overloaded):
    code = "rate_limited"
    http_status = 429


class BadUpstream(RetryableError):
    code = "bad_upstream"
    http_status = 502


class TimedOut(RetryableError):
    code = "timed_out"
    http_status = 504


def error_from_json(status: int, body: Any) -> FlightpathError:
    """Rebuild the error that an agent or a gateway answered; an unknown body keeps its HTTP status."""
    detail = body.get("error") if isinstance(body, dict) else None
    if not isinstance(detail, dict):
        kind: type[FlightpathError] = RetryableError if status >= 500 else PermanentError
        return kind("answer is no error of Flightpath", got=f"HTTP {status}: {body}", expected="an error object")
    known = _errors_by_code(FlightpathError).get(str(detail.get("code")))
    if known is None:
        known = RetryableError if detail.get("retryable") else PermanentError
    error = known(str(detail.get("message")))
    error.got, error.expected = detail.get("got"), detail.get("expected")
    return error


def _errors_by_code(root: type[FlightpathError]) -> dict[str, type[FlightpathError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_errors_by_code(child))
    return found
