"""Attributes drift: what differs from the configuration, why, and by whom if an audit log knows.

Terraform says that something differs and what an apply would do. People want to know whether somebody changed or
deleted it by hand, or whether a change of the configuration was merged and never applied: the remedies are opposite.

    attribute(terraform.drift(variables), log=CloudTrailLog.in_region("us-east-1"))
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from infra.changelog import Change, ChangeLog, ChangeLogUnavailable
from infra.driver.plan import AttributeChange, DriftReport, ResourceChange

UNKNOWN_VALUE: Final = "(known after apply)"
LOG_WINDOW: Final = timedelta(days=90)
"""What CloudTrail's event history holds."""


class Cause(StrEnum):
    CHANGED = "changed"
    """Somebody changed it outside this configuration."""
    DELETED = "deleted"
    """Somebody deleted it outside this configuration."""
    CONSEQUENCE = "consequence"
    """Nobody touched it, but an apply must, since something that it refers to drifted."""
    UNATTRIBUTED = "unattributed"
    """Nobody touched it: the configuration was changed and not applied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """One resource that is not as configured."""

    address: str
    type: str
    cause: Cause
    attributes: tuple[AttributeChange, ...]
    """Of what somebody changed: as it was applied, and as it is. Of a consequence and of what was not applied: as it
    is, and as an apply would make it. Of a deleted resource: none."""
    remedy: str
    """What an apply would do to it: create, update, replace, delete, or nothing."""
    changes: tuple[Change, ...] = ()
    """The newest first; empty where no log was asked or the log does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftAttribution:
    drifts: tuple[Drift, ...]
    log_problem: str = ""
    """Why the audit log did not tell, where it was asked and failed."""

    @property
    def has_drift(self) -> bool:
        """Somebody's doing that an apply would undo."""
        return any(drift.cause in (Cause.CHANGED, Cause.DELETED) and drift.remedy != "nothing" for drift in self.drifts)

    @property
    def is_clean(self) -> bool:
        return all(drift.remedy == "nothing" for drift in self.drifts)


def attribute(
    report: DriftReport, *, log: ChangeLog | None = None, now: datetime | None = None, window: timedelta = LOG_WINDOW
) -> DriftAttribution:
    """Every difference with its cause. A log that does not answer costs the names, never the report."""
    now = now or datetime.now(UTC)
    remedies = {change.address: change.action for change in report.pending}
    touched = [_touched(change, remedies) for change in report.drifted]
    problem = ""
    if log is not None:
        touched, problem = _ask(log, report.drifted, touched, since=now - window, until=now)
    drifts = (*touched, *(_untouched(change, bool(touched)) for change in report.unattributed))
    return DriftAttribution(drifts=drifts, log_problem=problem)


def _touched(change: ResourceChange, remedies: dict[str, str]) -> Drift:
    return Drift(
        address=change.address,
        type=change.type,
        cause=Cause.DELETED if change.action == "delete" else Cause.CHANGED,
        attributes=change.attributes,
        remedy=remedies.get(change.address, "nothing"),
    )


def _untouched(change: ResourceChange, something_drifted: bool) -> Drift:
    unknown = bool(change.attributes) and all(item.after == UNKNOWN_VALUE for item in change.attributes)
    return Drift(
        address=change.address,
        type=change.type,
        cause=Cause.CONSEQUENCE if something_drifted and unknown else Cause.UNATTRIBUTED,
        attributes=change.attributes,
        remedy=change.action,
    )


def _ask(
    log: ChangeLog, changes: Sequence[ResourceChange], drifts: list[Drift], *, since: datetime, until: datetime
) -> tuple[list[Drift], str]:
    named = []
    try:
        for change, drift in zip(changes, drifts, strict=True):
            told = tuple(log.changes(change.identities, since=since, until=until)) if change.identities else ()
            named.append(replace(drift, changes=told))
    except ChangeLogUnavailable as problem:
        return named + drifts[len(named) :], str(problem)
    return named, ""
