"""What a ModelDeployment tells of itself, from what was observed alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.conditions import degraded, find_condition, set_conditions
from flightpath_operator.names import selector
from flightpath_operator.plan import OWNER_LABEL, Object

_STUCK: Final = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons for which a container waits that do not pass by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Servers:
    """The replicas as their Deployment and, where they are observed, their pods show them."""

    exists: bool = False
    desired: int = 0
    current: int = 0
    """Replicas of every revision."""
    updated: int = 0
    ready: int = 0
    seen: bool = False
    """Whether the controller has looked at the newest spec."""
    stuck: str = ""
    """Reason for which it does not get on by itself, CamelCase; empty while it does."""
    message: str = ""

    @property
    def complete(self) -> bool:
        """Every replica is of the newest spec and answers."""
        return self.seen and self.current == self.updated == self.desired <= self.ready


def read_servers(parent: Object, deployment: Object | None, pods: Iterable[Object]) -> Servers:
    """Sums up the Deployment; a pod's own reason is preferred, since it names the cause."""
    if deployment is None:
        return Servers()
    status = deployment.get("status") or {}
    reason, message = _find_stuck_pod(parent, pods)
    if not reason:
        reason, message = _find_stuck_rollout(status.get("conditions") or [])
    return Servers(
        exists=True,
        desired=deployment["spec"].get("replicas", 1),
        current=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        seen=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
        stuck=reason,
        message=message,
    )


def _find_stuck_rollout(conditions: Sequence[Object]) -> tuple[str, str]:
    progressing = find_condition(conditions, "Progressing") or {}
    if progressing.get("status") == "False":
        return str(progressing.get("reason") or "NotProgressing"), str(progressing.get("message") or "")
    failure = find_condition(conditions, "ReplicaFailure") or {}
    if failure.get("status") == "True":
        return str(failure.get("reason") or "FailedCreate"), str(failure.get("message") or "")
    return "", ""


def _find_stuck_pod(parent: Object, pods: Iterable[Object]) -> tuple[str, str]:
    """The first pod by name that waits for what will not come: image, configuration, bundle, node."""
    mine = [pod for pod in pods if _selects(parent, pod) and pod["metadata"].get("deletionTimestamp") is None]
    for pod in sorted(mine, key=lambda pod: str(pod["metadata"]["name"])):
        reason, message = _judge_pod(pod)
        if reason:
            return reason, f"pod {pod['metadata']['name']}: {message}"
    return "", ""


def _selects(parent: Object, pod: Object) -> bool:
    return bool(pod["metadata"].get("labels", {}).get(OWNER_LABEL) == selector(parent)[OWNER_LABEL])


def _judge_pod(pod: Object) -> tuple[str, str]:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            return waiting["reason"], f"{container['name']}: {_why(waiting, container)}"
    scheduled = find_condition(status.get("conditions") or [], "PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "Unschedulable", str(scheduled.get("message") or "no node fits")
    return "", ""


def _why(waiting: Object, container: Object) -> str:
    """What the container wrote before it ended tells more than that it waits to be started again."""
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if waiting["reason"] == "CrashLoopBackOff" and ended:
        said = str(ended.get("message") or "").strip()
        return f"exited with {ended.get('exitCode')} ({ended.get('reason', 'Error')}) {said}".strip()
    return str(waiting.get("message") or waiting["reason"])


def phase(servers: Servers) -> str:
    """One word for people; programs read the conditions."""
    if not servers.exists:
        return "Pending"
    if servers.stuck:
        return "Degraded" if servers.ready else "Failed"
    if servers.complete:
        return "Ready" if servers.desired else "Stopped"
    return "Progressing"


def describe(
    parent: Object,
    spec: ModelDeploymentSpec,
    servers: Servers,
    *,
    url: str | None,
    left_out: Sequence[str],
    problems: Sequence[str],
    now: float,
) -> Object:
    """The whole status of an accepted ModelDeployment. `problems`: what the API server refused."""
    metadata = parent["metadata"]
    old = parent.get("status") or {}
    conditions = set_conditions(
        old.get("conditions") or [],
        [
            ("Accepted", True, "Accepted", "The spec can be carried out."),
            ("Ready", *_ready(servers, problems)),
            ("Progressing", not servers.complete and not servers.stuck, *_progress(servers)),
            degraded(left_out, problems),
        ],
        now=now,
        generation=metadata.get("generation", 0),
    )
    bundle = spec.bundle.digest if servers.complete else old.get("observedBundle") if not servers.seen else None
    status: dict[str, Any] = {
        "phase": phase(servers),
        "observedGeneration": metadata.get("generation", 0),
        "conditions": conditions,
        "replicas": servers.current,
        "readyReplicas": servers.ready,
        "updatedReplicas": servers.updated,
        "selector": ",".join(f"{key}={value}" for key, value in selector(parent).items()),
        "url": url,
        "observedBundle": bundle,
    }
    return {key: value for key, value in status.items() if value is not None}


def _ready(servers: Servers, problems: Sequence[str]) -> tuple[bool, str, str]:
    told = f"{servers.ready} of {servers.desired} replicas answer"
    if servers.stuck:
        return False, servers.stuck, f"{told}; {servers.message}"
    if servers.complete:
        return True, "Ready" if servers.desired else "Stopped", told
    if problems and not servers.exists:
        return False, "WriteRefused", "; ".join(problems)
    return False, "Progressing", f"{told}, {servers.updated} of them of the newest spec"


def _progress(servers: Servers) -> tuple[str, str]:
    if servers.stuck:
        return servers.stuck, servers.message
    if servers.complete:
        return "Complete", "The newest spec is rolled out."
    return "RollingOut", f"{servers.updated} of {servers.desired} replicas are of the newest spec"
