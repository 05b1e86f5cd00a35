"""What the API server may answer, told apart by what to do about it.

ApiError
+-- NotFound        404: it is gone
+-- Conflict        409: somebody else wrote first; look again
|   +-- Exists      the name is taken
+-- Expired         410: watch from a new list
+-- Refused         400, 403, 422: permanent until somebody changes something; told in a condition
+-- Unavailable     429, 5xx, no connection: the same call again later
"""

from typing import Any


class ApiError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{message or reason} (HTTP {status})")
        self.status = status
        self.reason = reason
        """The server's own word: AlreadyExists, Forbidden, Invalid, …"""
        self.message = message
        self.retry_after_s = retry_after_s


class NotFound(ApiError):
    """The object, or its kind, is not there."""


class Conflict(ApiError):
    """The object has changed since it was read."""


class Exists(Conflict):
    """Another object has this name."""


class Expired(ApiError):
    """The version to watch from is too old."""


class Refused(ApiError):
    """Quota, admission, permission or schema."""


class Unavailable(ApiError):
    """Overload, failure or no connection."""


def from_answer(status: int, body: Any, retry_after: str | None) -> ApiError:
    """The error for an HTTP status and a `Status` object, if the body is one."""
    known = body if isinstance(body, dict) else {}
    reason, message = str(known.get("reason") or ""), str(known.get("message") or "")
    wait = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    return _kind(status, reason)(status, reason, message, retry_after_s=wait)


def _kind(status: int, reason: str) -> type[ApiError]:
    if status == 409:
        return Exists if reason == "AlreadyExists" else Conflict
    if status == 404:
        return NotFound
    if status == 410:
        return Expired
    if status == 429 or status >= 500 or status == 0:
        return Unavailable
    return Refused
