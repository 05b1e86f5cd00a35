"""One slow worker slows all: told from the time that each rank spends on its own work.

Workers may report it (`rank_seconds`); a step's whole time says nothing, for the fast ones wait in the all-reduce.
"""

from statistics import median
from typing import Final

from flightpath_operator.conditions import find_condition, is_true
from flightpath_operator.training.job import Job
from flightpath_operator.training.reports import read_report

_SLOW: Final = 1.5
"""Times the median: a rank that slow costs the group a third of its speed."""
_FINE: Final = 1.25
"""A straggler is no longer one below this: no flapping at the limit."""
_FEWEST: Final = 3
"""Ranks from which on a median tells who is the odd one out."""
_MAX_NAMED: Final = 5


def judge_stragglers(job: Job) -> tuple[bool, str, str] | None:
    """The condition Straggling; None where it never was true."""
    report = read_report(job.observed.progress)
    was = is_true(job.state.conditions, "Straggling")
    even = (False, "Even", "") if find_condition(job.state.conditions, "Straggling") else None
    if report is None or report.received_at < job.group.since or len(report.rank_seconds) < _FEWEST:
        return even
    usual = median(report.rank_seconds.values())
    limit = usual * (_FINE if was else _SLOW)
    slow = sorted(rank for rank, seconds in report.rank_seconds.items() if seconds > limit)
    if not slow:
        return even
    named = ", ".join(_name(job, rank, report.rank_seconds[rank]) for rank in slow[:_MAX_NAMED])
    return True, "SlowWorkers", f"{named}; the median is {usual:.3g} s per step"


def _name(job: Job, rank: int, seconds: float) -> str:
    """A rank of torch.distributed is a process; several may share a worker."""
    worker = job.workers.get(rank // max(1, job.spec.gpus_per_worker))
    place = f" on {worker.node}" if worker and worker.node else ""
    return f"rank {rank}{place} takes {seconds:.3g} s"
