"""Looks for drift in one region and puts it into the form that a workflow hands on."""

from collections.abc import Mapping
from datetime import UTC
from typing import Final

from infra.changelog import Change, ChangeLog, CloudTrailLog
from infra.drift import Drift, DriftAttribution, attribute
from infra.driver.plan import AttributeChange
from tasks.clusters import environments
from tasks.clusters.errors import Drifted
from tasks.clusters.outcomes import DriftFound, DriftRow
from tasks.clusters.settings import ClusterSettings

_SHOWN: Final = 120
_MOST_NAMES: Final = 5


def find_drift(
    name: str,
    variables: Mapping[str, str],
    backend: Mapping[str, str],
    settings: ClusterSettings,
    *,
    log: ChangeLog | None = None,
) -> DriftAttribution:
    environment = environments.open_environment(name, settings)
    report = environment.driver(backend, settings).drift(environments.values(variables, settings))
    return attribute(report, log=log)


def change_log(cloudtrail_region: str) -> ChangeLog | None:
    """The audit log of a region of AWS; none is asked where no region is given."""
    return CloudTrailLog.in_region(cloudtrail_region) if cloudtrail_region else None


def as_found(region: str, attribution: DriftAttribution) -> DriftFound:
    return DriftFound(
        region=region,
        has_drift=attribution.has_drift,
        is_clean=attribution.is_clean,
        rows=[_row(drift) for drift in attribution.drifts],
        log_problem=attribution.log_problem,
    )


def require_clean(found: DriftFound) -> None:
    """Raises Drifted, so that whoever is notified of failed executions is told. What nobody applied counts too."""
    if found.is_clean:
        return
    told = "; ".join(f"{row.address} {row.cause}{_by(row)}" for row in found.rows if row.remedy != "nothing")
    raise Drifted(f"{found.region} is not as it was applied: {told}", expected="no difference")


def _by(row: DriftRow) -> str:
    return f" ({'; '.join(row.who)})" if row.who else ""


def _row(drift: Drift) -> DriftRow:
    return DriftRow(
        address=drift.address,
        cause=drift.cause.value,
        remedy=drift.remedy,
        attributes=[_shown(item) for item in drift.attributes],
        who=[_told(change) for change in drift.changes[:_MOST_NAMES]],
    )


def _told(change: Change) -> str:
    where = f" from {change.address}" if change.address else ""
    agent = ", by Terraform" if change.by_terraform else ""
    return f"{change.who}: {change.what} at {change.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC{where}{agent}"


def _shown(item: AttributeChange) -> str:
    return f"{item.name}: {_cut(item.before)} -> {_cut(item.after)}"


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
