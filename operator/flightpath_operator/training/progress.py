"""What the workers' reports mean: how far the run is, what a restart cost, whether it stands still.

Lost steps are counted once: the steps between the last report before the failure and the step that the next
attempt resumed from. Lost seconds run from each failure to the next one, or to the first report after it, so that
their sum is the time in which the run got nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flightpath_operator.conditions import find_condition
from flightpath_operator.training.job import Job
from flightpath_operator.training.reports import Report, read_report
from flightpath_operator.training.state import (
    MAX_RESTARTS_KEPT,
    CheckpointStatus,
    Counters,
    JobState,
    Pace,
    Progress,
    Restart,
)
from flightpath_operator.training.workers import parse_time

Metric = tuple[str, Mapping[str, str], float]

LOST_STEPS: Final = "flightpath_operator_lost_steps_total"
LOST_SECONDS: Final = "flightpath_operator_lost_seconds_total"
REFORMED: Final = "WorkersReformed"
"""Cause of a loss inside an attempt: torchrun of an elastic job began again by itself."""
_NEWEST: Final = 0.2
"""Weight of the newest sample in the moving means: some ten reports are remembered."""
_SILENT_REPORTS: Final = 2
"""Reports that must be missing before their silence means something."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """The state with the newest report in it."""

    state: JobState
    important: bool = False
    """Must be written now; other reports only now and then."""
    metrics: tuple[Metric, ...] = ()


def fold_progress(job: Job) -> Folded:
    """Takes the newest report over, if it is of this attempt and new."""
    report = _fresh_report(job)
    if report is None:
        return Folded(state=job.state)
    before, pace = job.state.progress, job.state.pace
    first = pace is None or pace.attempt != job.state.attempt
    state, metrics = _settle(job.state, report) if first else _settle_inner(job.state, report)
    reached = _reached(job, report)
    state = state.having(
        progress=_progress(report),
        pace=_pace(job, report, reached),
        checkpoint=_checkpoint(state, report, first),
        counters=_counters(job.state, report),
        step_before=None,
    )
    important = (
        pace is None
        or before is None
        or first
        or bool(metrics)
        or bool(reached or pace.reached)
        or report.checkpoint_step != before.checkpoint_step
        or report.step == report.total_steps
        or report.received_at - pace.received_at >= job.settings.progress_interval.total_seconds()
    )
    return Folded(state=state, important=important, metrics=metrics)


def record_restart(state: JobState, cause: str, at: float) -> JobState:
    """The restarts with one more; its price is settled by the next attempt's first report."""
    step_before = state.step_before
    if step_before is None and state.progress is not None:
        step_before = state.progress.step
    restarts = (*state.restarts, Restart(at=at, cause=cause))[-MAX_RESTARTS_KEPT:]
    return state.having(restarts=restarts, step_before=step_before)


def target_reached(job: Job) -> bool:
    """Whether spec.success has been met in enough reports, one after another."""
    success, pace = job.spec.success, job.state.pace
    return success is not None and pace is not None and pace.reached >= success.patience


def stall_deadline(job: Job) -> float | None:
    """When the present silence becomes a stall; None where nothing can be said."""
    pace, progress = job.state.pace, job.state.progress
    if pace is None or progress is None or not job.all_run():
        return None
    if pace.attempt == job.state.attempt:
        # After the last step come evaluation and saving, which report nothing.
        finished = progress.total_steps is not None and progress.step >= progress.total_steps
        return None if finished else pace.received_at + _patience(job, pace)
    since = running_since(job)
    if since is None:
        return None
    return since + max(_patience(job, pace), float(job.spec.startup_deadline_seconds))


def running_since(job: Job) -> float | None:
    """When the present group began to run."""
    running = find_condition(job.state.conditions, "Running")
    return parse_time(running["lastTransitionTime"]) if running and running.get("status") == "True" else None


def _patience(job: Job, pace: Pace) -> float:
    """The usual step times the factor; never less than two usual reports are apart, for they may be rare."""
    steps = (pace.step_seconds or 0.0) * job.spec.restart.stall_factor
    reports = (pace.interval_seconds or 0.0) * _SILENT_REPORTS
    return max(steps, reports, job.settings.stall_floor.total_seconds())


def _fresh_report(job: Job) -> Report | None:
    report = read_report(job.observed.progress)
    if report is None or report.received_at <= _received_at(job.state.pace):
        return None
    if report.attempt is not None:
        return report if report.attempt == job.state.attempt else None
    return report if report.received_at >= job.group.since else None


def _received_at(pace: Pace | None) -> float:
    # The status keeps milliseconds.
    return pace.received_at + 0.001 if pace is not None else 0.0


def _settle(state: JobState, report: Report) -> tuple[JobState, tuple[Metric, ...]]:
    """First report of an attempt: what the restarts before it cost is known now."""
    unsettled = [restart for restart in state.restarts if restart.lost_seconds is None]
    if not unsettled:
        return state, ()
    resumed = _resumed_from(state, report)
    steps = max(0, (state.step_before or 0) - resumed)
    ends = [*(restart.at for restart in unsettled[1:]), report.received_at]
    settled = tuple(
        restart.model_copy(
            update={
                "resumed_from_step": resumed,
                "lost_steps": 0 if index else steps,
                "lost_seconds": round(max(0.0, end - restart.at), 3),
            }
        )
        for index, (restart, end) in enumerate(zip(unsettled, ends, strict=True))
    )
    kept = state.restarts[: len(state.restarts) - len(settled)]
    return state.having(restarts=(*kept, *settled)), _losses(steps, sum(item.lost_seconds or 0.0 for item in settled))


def _settle_inner(state: JobState, report: Report) -> tuple[JobState, tuple[Metric, ...]]:
    """Steps that went backwards inside an attempt were lost as well."""
    before, pace = state.progress, state.pace
    if before is None or pace is None or report.step >= before.step:
        return state, ()
    resumed = _resumed_from(state, report)
    restart = Restart(
        at=pace.received_at,
        cause=REFORMED,
        resumed_from_step=resumed,
        lost_steps=max(0, before.step - resumed),
        lost_seconds=round(report.received_at - pace.received_at, 3),
    )
    restarts = (*state.restarts, restart)[-MAX_RESTARTS_KEPT:]
    return state.having(restarts=restarts), _losses(restart.lost_steps or 0, restart.lost_seconds or 0.0)


def _resumed_from(state: JobState, report: Report) -> int:
    """The step that the workers say they resumed from, or else the newest checkpoint known before."""
    if report.resumed_from_step is not None:
        return report.resumed_from_step
    known = state.checkpoint.step if state.checkpoint and state.checkpoint.step else 0
    return min(known, report.step)


def _losses(steps: int, seconds: float) -> tuple[Metric, ...]:
    return ((LOST_STEPS, {}, float(steps)), (LOST_SECONDS, {}, seconds))


def _progress(report: Report) -> Progress:
    return Progress(
        step=report.step,
        total_steps=report.total_steps,
        loss=report.loss,
        samples_per_s=report.samples_per_s,
        checkpoint_step=report.checkpoint_step,
        time=report.time,
    )


def _pace(job: Job, report: Report, reached: int) -> Pace:
    pace, before = job.state.pace, job.state.progress
    step_seconds = pace.step_seconds if pace else None
    interval = pace.interval_seconds if pace else None
    if pace is not None and before is not None and pace.attempt == job.state.attempt:
        passed = report.received_at - pace.received_at
        interval = _mean(interval, passed)
        if report.step > before.step:
            step_seconds = _mean(step_seconds, passed / (report.step - before.step))
    return Pace(
        attempt=job.state.attempt,
        received_at=report.received_at,
        step_seconds=step_seconds,
        interval_seconds=interval,
        reached=reached,
        furthest=max(report.step, pace.furthest if pace else 0),
    )


def _mean(before: float | None, sample: float) -> float:
    return round(sample if before is None else before + _NEWEST * (sample - before), 6)


def _reached(job: Job, report: Report) -> int:
    success, pace = job.spec.success, job.state.pace
    if success is None or report.loss is None:
        return 0
    met = report.loss <= success.target if success.mode == "min" else report.loss >= success.target
    return (pace.reached if pace else 0) + 1 if met else 0


def _checkpoint(state: JobState, report: Report, first: bool) -> CheckpointStatus | None:
    before = state.checkpoint or CheckpointStatus(step=0, verified=False)
    newest = max(report.checkpoint_step or 0, report.resumed_from_step or 0)
    if not newest and report.checkpoint_step is None:
        newest = before.step
    # Read back by the workers that resumed from it; one that is only written was hashed, not read.
    read_back = report.resumed_from_step == newest or (before.verified and before.step == newest)
    skipped = report.skipped if report.skipped or first else before.skipped
    if not newest and not skipped:
        return None
    return CheckpointStatus(step=newest, verified=read_back and newest > 0, skipped=skipped)


def _counters(state: JobState, report: Report) -> Counters:
    """A run that gets further than it ever was ends a streak of failures."""
    furthest = state.pace.furthest if state.pace else -1
    return state.counters.model_copy(update={"streak": 0}) if report.step > furthest else state.counters
