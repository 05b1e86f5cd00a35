"""The status that the process kubelet writes for a Pod, from the states of its containers."""

from collections.abc import Iterable
from typing import Any

from tests.fakes.kubernetes.containers import ContainerState
from tests.fakes.kubernetes.local_network import LOOPBACK
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]

_OWN = ("Initialized", "Ready", "ContainersReady")


def phase_of(inits: Iterable[ContainerState], mains: Iterable[ContainerState], *, over: bool) -> str:
    """`over`: no container will be started any more."""
    mains = list(mains)
    states = [*inits, *mains]
    if over and not any(state.running for state in states):
        failed = [state for state in states if state.terminated and state.terminated["exitCode"] != 0]
        unfinished = [state for state in mains if state.terminated is None]
        return "Failed" if failed or unfinished else "Succeeded"
    begun = any(state.running or state.terminated or state.restarts for state in mains)
    return "Running" if begun else "Pending"


def _condition(kind: str, holds: bool, reason: str, before: Iterable[Object]) -> Object:
    status = "True" if holds else "False"
    known = next((each for each in before if each["type"] == kind and each["status"] == status), None)
    since = known["lastTransitionTime"] if known else rfc3339()
    condition: Object = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": since}
    return condition if holds else {**condition, "reason": reason}


def conditions_of(
    inits: Iterable[ContainerState], mains: Iterable[ContainerState], phase: str, before: list[Object]
) -> list[Object]:
    """The kubelet's conditions, beside those of others; `before`: what was there, the kubelet's own word first."""
    initialized = all(state.terminated is not None and state.terminated["exitCode"] == 0 for state in inits)
    ready = phase == "Running" and all(state.ready for state in mains)
    reason = "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"
    own = [
        _condition("Initialized", initialized, "ContainersNotInitialized", before),
        _condition("Ready", ready, reason, before),
        _condition("ContainersReady", ready, reason, before),
    ]
    others = {each["type"]: each for each in before if each["type"] not in _OWN}
    return [*own, *others.values()]


def status_of(
    inits: list[ContainerState], mains: list[ContainerState], phase: str, before: list[Object], started_at: str
) -> Object:
    return {
        "phase": phase,
        "conditions": conditions_of(inits, mains, phase, before),
        "hostIP": LOOPBACK,
        "podIP": LOOPBACK,
        "podIPs": [{"ip": LOOPBACK}],
        "startTime": started_at,
        "initContainerStatuses": [state.document() for state in inits],
        "containerStatuses": [state.document() for state in mains],
    }
