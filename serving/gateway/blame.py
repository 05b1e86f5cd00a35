"""Who is to blame for how an attempt ended: one table for every API. Pure.

An attempt ends under one of the names of `serving.counters.ENDINGS`. The table also says what may follow: whether
another server is asked, and whether the one that was asked is passed over for a while. What is not listed is the
server's fault: a status, an ending or a body that its API does not allow says nothing about the user.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from serving.errors import BadUpstream, Overloaded, PermanentError, RateLimited, RetryableError, TimedOut


class Api(Enum):
    """What was asked for: each allows other answers."""

    INFER = "Open Inference Protocol, infer"
    METADATA = "Open Inference Protocol, a model's metadata"
    COMPLETION = "OpenAI, whole answer"
    STREAM = "OpenAI, stream"


class Ejects(Enum):
    NEVER = "never"
    IN_A_ROW = "after some in a row"
    AT_ONCE = "at once"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How an attempt ended, and what may follow."""

    outcome: str
    """One of `serving.counters.ENDINGS`."""
    elsewhere: bool = False
    """Whether another server may be asked, while nothing of an answer was sent."""
    ejects: Ejects = Ejects.NEVER
    alive: bool = False
    """Whether it takes an ejected server back: a sign of life."""


ANSWERED: Final = Verdict(outcome="answered", alive=True)
REFUSED: Final = Verdict(outcome="refused", alive=True)
FAILED: Final = Verdict(outcome="failed", elsewhere=True, ejects=Ejects.IN_A_ROW)
OVERLOADED: Final = Verdict(outcome="overloaded", elsewhere=True, alive=True)
LATE: Final = Verdict(outcome="late", elsewhere=True, ejects=Ejects.AT_ONCE)
ABANDONED: Final = Verdict(outcome="abandoned")
UNKNOWN: Final = Verdict(outcome="unknown")


class BoundReached(RetryableError):
    """A bound of the gateway's own on what one request may hold: no server's fault."""

    http_status = 504


_INFERENCE: Final = MappingProxyType(
    {200: ANSWERED, 400: REFUSED, 413: REFUSED, 422: REFUSED, 429: OVERLOADED, 503: OVERLOADED}
)
STATUSES: Final[Mapping[Api, Mapping[int, Verdict]]] = MappingProxyType(
    {
        Api.INFER: _INFERENCE,
        Api.COMPLETION: _INFERENCE,
        Api.STREAM: _INFERENCE,
        # A user has no part in this request: nothing of it can be wrong.
        Api.METADATA: MappingProxyType({200: ANSWERED, 429: OVERLOADED, 503: OVERLOADED}),
    }
)
"""Every other status is FAILED: 401 and 404 tell of the server or its credentials, 204 and 3xx are no answers."""

ENDINGS: Final = MappingProxyType(
    dict.fromkeys(
        ("stop", "length", "tool_calls", "function_call", "content_filter", "repetition"),
        ANSWERED,
    )
)
"""The `finish_reason`s that mean an end; vLLM also ends with abort (SIGTERM) and error: FAILED."""

_ERRORS: Final[tuple[tuple[type[BaseException], Verdict], ...]] = (
    (Overloaded, OVERLOADED),
    (TimedOut, LATE),
    (BoundReached, UNKNOWN),
    (RetryableError, FAILED),
    (PermanentError, REFUSED),
)


def of_status(api: Api, status: int) -> Verdict:
    """Of an answer's HTTP status, or the code of an error event in a stream; a 200 must still prove itself."""
    return STATUSES[api].get(status, FAILED)


def of_ending(finish_reason: object) -> Verdict:
    """Of the reason for which a choice ended."""
    return ENDINGS.get(finish_reason, FAILED) if isinstance(finish_reason, str) else FAILED


def of_error(error: BaseException) -> Verdict:
    """Of what was raised instead of an answer; a fault of the gateway's own is nobody's."""
    return next((verdict for kind, verdict in _ERRORS if isinstance(error, kind)), UNKNOWN)


def error_of(verdict: Verdict, status: int, what: str, *, got: object, retry_after: str | None) -> RetryableError:
    """What to raise for an answer of this status that is FAILED or OVERLOADED."""
    if verdict is OVERLOADED:
        return (RateLimited if status == 429 else Overloaded)(what, got=got, retry_after=retry_after)
    return BadUpstream(what, got=got, expected="200, or 400, 413 or 422 for a request that is wrong")
