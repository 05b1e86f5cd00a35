"""What a gateway's or an agent's calls for its health add up to: whether it is to be replaced.

Any answer is a sign of life. 503 says that something in the process is stuck, and it heals by itself: only when it
says so for minutes is it replaced, and only once. If the next process says the same the cause lies elsewhere, in a
database that is away for one, and killing it again and again would only add to that.
"""

import http.client
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from serving.liveness import Liveness, LivenessLimits, Verdict

_EVERY_S: Final = 1.0
_ANSWER_S: Final = 5.0
"""For one answer; a busy process may need several calls, so this decides nothing by itself."""

_STARTING: Final = LivenessLimits(hung_dead_s=180.0)
"""Until the first answer: an agent may wait for its peers and its servers, on a machine where all start at once."""
_RUNNING: Final = LivenessLimits(hung_dead_s=60.0)
"""A busy event loop answers late, within seconds; none leaves twelve calls in a row unanswered."""
_UNWELL: Final = LivenessLimits(hung_dead_s=180.0)
"""Of 503 without a break: a loop that is stuck heals itself within a minute, or not at all."""
_UNAVAILABLE: Final = 503


class HealthCall:
    """GET of one URL, asked in a thread of `pool`: a child that hangs must not delay the others. One at a time."""

    def __init__(self, url: str, pool: Executor) -> None:
        self._url = url
        self._pool = pool
        self._asked: Future[int | None] | None = None
        self._next_at: float | None = None

    def heard(self, now: float) -> int | None:
        """The status that was answered since the last call, None if nothing was; asks again where that is due."""
        status = None
        if self._asked is not None and self._asked.done():
            status, self._asked = self._asked.result(), None
        if self._asked is None and (self._next_at is None or now >= self._next_at):
            self._next_at = now + _EVERY_S
            self._asked = self._pool.submit(ask, self._url)
        return status


def ask(url: str) -> int | None:
    """The status of GET `url`, None if there is no answer in time."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@dataclass(slots=True)
class Wellness:
    """What one child's answers add up to. Pure: monotonic time is handed in."""

    _life: Liveness = field(default_factory=lambda: Liveness(_STARTING))
    _health: Liveness = field(default_factory=lambda: Liveness(_UNWELL))
    _unwell: bool = False
    """Whether its last answer was 503."""
    _replaced: bool = False
    """For saying 503, and none has been well since."""

    def begin(self) -> None:
        """A new process: what the old one did not answer is forgotten."""
        self._life, self._health, self._unwell = Liveness(_STARTING), Liveness(_UNWELL), False

    def look(self, now: float, *, status: int | None, stopped: bool) -> str | None:
        """Why the process is to be replaced now; None while it is not. `status`: of an answer since the last look."""
        if status is not None and self._life.limits is _STARTING:
            self._life = Liveness(_RUNNING)
        if status is not None:
            self._unwell = status == _UNAVAILABLE
            self._replaced = self._replaced and self._unwell
        if self._life.look(now, answered=status is not None, stopped=stopped) is Verdict.DEAD:
            return self._life.why
        if self._health.look(now, answered=not self._unwell, stopped=False) is Verdict.DEAD and not self._replaced:
            self._replaced = True
            return f"unwell (HTTP {_UNAVAILABLE}) for {_UNWELL.hung_dead_s:.0f} s"
        return None
