"""Reads workers' pods: who they are by their names, and what became of them.

Attempt and rank come from the name, which nobody can edit; labels can be.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from flightpath_operator.conditions import seconds
from flightpath_operator.ownership import is_going
from flightpath_operator.plan import Object

CONTAINER: Final = "worker"
STRAY: Final = -1
"""Attempt and rank of a pod that is the job's and bears no worker's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """How a container ended."""

    code: int
    reason: str = ""
    message: str = ""
    at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One pod of the job."""

    pod: Object
    attempt: int
    rank: int

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @cached_property
    def phase(self) -> str:
        return str(self._status.get("phase", "Pending"))

    @cached_property
    def node(self) -> str | None:
        name = self.pod.get("spec", {}).get("nodeName")
        return str(name) if name else None

    @property
    def going(self) -> bool:
        return is_going(self.pod)

    @property
    def gated(self) -> bool:
        return bool(self.pod.get("spec", {}).get("schedulingGates"))

    @property
    def scheduled(self) -> bool:
        return bool(self.node)

    @property
    def running(self) -> bool:
        return self.phase == "Running" and not self.going and self.exit is None

    @cached_property
    def succeeded(self) -> bool:
        """Exited with 0; a sidecar that somebody injected may go on."""
        return self.phase == "Succeeded" or (self.exit is not None and self.exit.code == 0)

    @property
    def ended(self) -> bool:
        """No container of it runs."""
        return self.phase in ("Succeeded", "Failed")

    @cached_property
    def exit(self) -> Exit | None:
        """How the program ended; that of an init container that failed."""
        for container in self._containers("containerStatuses"):
            if container.get("name") == CONTAINER and (ended := _terminated(container)):
                return ended
        failed = (_terminated(container) for container in self._containers("initContainerStatuses"))
        return next((ended for ended in failed if ended and ended.code != 0), None)

    @property
    def waiting(self) -> tuple[str, str] | None:
        """Reason and message of a container that does not start."""
        for container in (*self._containers("initContainerStatuses"), *self._containers("containerStatuses")):
            held = container.get("state", {}).get("waiting")
            if held and held.get("reason"):
                return str(held["reason"]), str(held.get("message") or "")
        return None

    @property
    def deletion_asked_at(self) -> float | None:
        """When its deletion was asked for: the timestamp that the API shows lies the grace period later."""
        deadline = self.deletion_deadline
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds") or 0
        return None if deadline is None else deadline - grace

    @property
    def deletion_deadline(self) -> float | None:
        return parse_time(self.pod["metadata"].get("deletionTimestamp"))

    def condition(self, kind: str) -> Object | None:
        conditions: list[Object] = self._status.get("conditions") or []
        return next((condition for condition in conditions if condition.get("type") == kind), None)

    @property
    def reason(self) -> str:
        return str(self._status.get("reason") or "")

    @property
    def message(self) -> str:
        return str(self._status.get("message") or "")

    @property
    def _status(self) -> dict[str, Any]:
        return self.pod.get("status") or {}

    def _containers(self, field: str) -> list[Object]:
        return self._status.get(field) or []


def read_worker(job: str, pod: Object) -> Worker:
    """The worker that a pod of the job is."""
    match = re.fullmatch(re.escape(job) + r"-a(\d{1,9})-w(\d{1,5})", pod["metadata"]["name"])
    if match is None:
        return Worker(pod=pod, attempt=STRAY, rank=STRAY)
    return Worker(pod=pod, attempt=int(match[1]), rank=int(match[2]))


def parse_time(text: Any) -> float | None:
    """Seconds since the epoch; None for what is no time."""
    try:
        return seconds(text)
    except (TypeError, ValueError):
        return None


def _terminated(container: Object) -> Exit | None:
    ended = container.get("state", {}).get("terminated")
    if ended is None:
        return None
    return Exit(
        code=int(ended.get("exitCode", 0)),
        reason=str(ended.get("reason") or ""),
        message=str(ended.get("message") or ""),
        at=parse_time(ended.get("finishedAt")),
    )
