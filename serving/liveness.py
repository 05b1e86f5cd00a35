"""When something counts as dead though its process lives: it was stopped, or it hangs.

A stopped process is known by the kernel's word, so seconds are enough: no load stops a process. Silence alone proves
little, for a loaded machine or a long queue answers late, and a false verdict is dear: all that a server has queued is
lost, and the next one starts cold under the same load. So silence counts only while no sign of work is seen either, it
must last for longer than any user waits, and the time in which the observer itself did not run does not count.
Pure: time is handed in.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    ALIVE = "alive"
    SILENT = "silent"
    """Nobody should be sent to it; the next sign of life takes this back."""
    DEAD = "dead"
    """It is to be killed and replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LivenessLimits:
    """All in seconds."""

    stopped_silent_s: float = 1.0
    """A stopped process that leaves a question open for this long is taken out of the route; a throttle that stops
    and continues it many times a second answers meanwhile."""
    stopped_dead_s: float = 5.0
    """One that is not continued within this is replaced: longer than a hand needs for SIGSTOP and SIGCONT."""
    hung_silent_s: float = 60.0
    """No answer and no sign of work for this long: the longest that a gateway waits for a first token, so users have
    no answer of it either."""
    hung_dead_s: float = 120.0
    """Then it is replaced. A false positive costs all that it has queued and a cold start, so twice the above."""
    longest_gap_s: float = 1.0
    """Most that counts between two looks: an observer that was stopped or starved must not blame others for it."""


@dataclass(slots=True)
class Liveness:
    """What one process's answers and silences add up to."""

    limits: LivenessLimits = field(default_factory=LivenessLimits)
    verdict: Verdict = Verdict.ALIVE
    why: str = ""
    """Of any verdict but ALIVE."""
    _looked_at: float | None = None
    _stopped_s: float | None = None
    """From the first look that found it stopped; None while it is not."""
    _silent_s: float = 0.0

    def look(self, now: float, *, answered: bool, stopped: bool, working: bool = False) -> Verdict:
        """Add what was seen since the last look.

        `answered`: it answered a question. `stopped`: the kernel holds it, or a process that it needs.
        `working`: it shows another sign of work, which a stopped one cannot.
        """
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, self.limits.longest_gap_s)
        self._looked_at = now
        if answered or (working and not stopped):
            self._stopped_s, self._silent_s = None, 0.0
            self.verdict, self.why = Verdict.ALIVE, ""
            return self.verdict
        if not stopped:
            self._stopped_s = None
        else:
            self._stopped_s = 0.0 if self._stopped_s is None else self._stopped_s + passed
        self._silent_s += passed
        self._judge()
        return self.verdict

    def _judge(self) -> None:
        """A verdict is never softened here: only a sign of life takes it back."""
        limits, stopped_s = self.limits, self._stopped_s or 0.0
        if stopped_s >= limits.stopped_dead_s or self._silent_s >= limits.hung_dead_s:
            self.verdict = Verdict.DEAD
        elif stopped_s >= limits.stopped_silent_s or self._silent_s >= limits.hung_silent_s:
            self.verdict = Verdict.SILENT
        if self.verdict is not Verdict.ALIVE:
            stopped = f"stopped for {stopped_s:.0f} s"
            self.why = f"no sign of life for {self._silent_s:.0f} s" if self._stopped_s is None else stopped
