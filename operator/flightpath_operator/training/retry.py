"""What the API server refuses is tried again with growing delay, whatever wakes the operator meanwhile."""

from dataclasses import dataclass

from flightpath_operator.ownership import Changes
from flightpath_operator.training.job import Job
from flightpath_operator.training.state import Blocked, JobState

_MAX_TOLD = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Gated:
    """The writes that may be made now, and the state that remembers why others may not."""

    state: JobState
    writes: Changes


def gate(job: Job, state: JobState, writes: Changes) -> Gated:
    """Lets writes pass, unless the last ones were refused and their time has not come.

    The refusals stay observed until writes are taken, so that none observed means: nothing stands in the way.
    """
    blocked, refused = state.blocked, job.observed.problems
    if not refused or not (writes.creates or writes.patches or writes.deletes):
        return Gated(state=state.having(blocked=None), writes=writes)
    message, held = tell_problems(refused), Changes(problems=writes.problems)
    if blocked is None:
        until = job.now + job.settings.retry_first.total_seconds()
        return Gated(state=state.having(blocked=Blocked(since=job.now, not_before=until, message=message)), writes=held)
    if job.now < blocked.not_before:
        return Gated(state=state.having(blocked=blocked.model_copy(update={"message": message})), writes=held)
    again = Blocked(since=blocked.since, not_before=job.now + _delay(job, blocked), message=message)
    return Gated(state=state.having(blocked=again), writes=writes)


def tell_problems(problems: tuple[str, ...]) -> str:
    """The first few refusals; a quota refuses a hundred pods with the same words."""
    told = "; ".join(problems[:_MAX_TOLD])
    return told + (f"; and {len(problems) - _MAX_TOLD} more" if len(problems) > _MAX_TOLD else "")


def refusal_reason(message: str) -> str:
    """A CamelCase word for what the API server said."""
    said = message.lower()
    if "exceeded quota" in said:
        return "QuotaExceeded"
    if "exists and" in said:
        return "NameTaken"
    if "podsecurity" in said:
        return "PodSecurityViolated"
    return "Forbidden" if "forbidden" in said else "Rejected"


def _delay(job: Job, blocked: Blocked) -> float:
    """As long again as it has been refused: the tries grow apart by the factor two."""
    first, longest = job.settings.retry_first.total_seconds(), job.settings.retry_longest.total_seconds()
    return min(max(job.now - blocked.since, first), longest)
