"""Decides what a ModelDeployment needs: pure, so that the same objects always give the same plan."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.api.read import InvalidSpec, read_model_deployment
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.conditions import find_condition, notes_of_transitions
from flightpath_operator.deployments.children import deployment, disruption_budget, network_policy, service
from flightpath_operator.deployments.kserve import inference_service, is_stopped
from flightpath_operator.deployments.scaling import (
    RESOURCE_METRICS,
    autoscaler,
    fewest_replicas,
    uses_keda,
)
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.deployments.status import Servers, describe, read_servers
from flightpath_operator.ownership import Changes, apply_children
from flightpath_operator.plan import FINALIZER, Object, Observed, Plan, is_owned
from flightpath_operator.refusal import refuse

_CHILD_KINDS: Final = frozenset(
    {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "HorizontalPodAutoscaler",
        "ScaledObject",
        "InferenceService",
    }
)
_RETRY: Final = timedelta(seconds=30)
"""After a write that was refused, and while a name is taken."""
_ROLLOUT: Final = timedelta(seconds=5)
"""While replicas come up: their pods belong to a ReplicaSet, so what they wait for wakes nobody here."""
_NAMESPACE_LABEL_MINOR: Final = 21


def reconcile(parent: Object, observed: Observed, now: float, settings: DeploymentSettings) -> Plan:
    """The children as they shall be and the status as it is. Deletion needs nothing: owner references do it."""
    if parent["metadata"].get("deletionTimestamp"):
        held = FINALIZER in parent["metadata"].get("finalizers", [])
        return Plan(finalizer=False if held else None)
    try:
        spec = read_model_deployment(parent)
    except InvalidSpec as invalid:
        return refuse(parent, invalid.reason, invalid.message, now=now)
    present = [child for child in observed.children if child["kind"] in _CHILD_KINDS]
    changes = apply_children(parent, _wanted(parent, spec, present, settings, observed.capabilities), present)
    if changes.problems:
        return refuse(parent, "NameTaken", "; ".join(changes.problems), now=now, again_in=_RETRY)
    return _carry_out(parent, spec, observed, changes, now, settings)


def _carry_out(
    parent: Object,
    spec: ModelDeploymentSpec,
    observed: Observed,
    changes: Changes,
    now: float,
    settings: DeploymentSettings,
) -> Plan:
    left_out = [*_left_out(spec, settings, observed.capabilities), *_idle_autoscalers(parent, observed)]
    servers, url = _look(parent, spec, observed)
    status = describe(parent, spec, servers, url=url, left_out=left_out, problems=observed.problems, now=now)
    before = (parent.get("status") or {}).get("conditions") or []
    after = status["conditions"]
    return Plan(
        creates=changes.creates,
        patches=changes.patches,
        deletes=changes.deletes,
        status=status,
        notes=notes_of_transitions(before, after, good={"Ready"}, bad={"Degraded"}, calm={"Progressing"}),
        again_in=_next_look(observed, servers),
    )


def _next_look(observed: Observed, servers: Servers) -> timedelta | None:
    if observed.problems:
        return _RETRY
    return None if servers.complete or servers.stuck else _ROLLOUT


def _wanted(
    parent: Object,
    spec: ModelDeploymentSpec,
    present: Sequence[Object],
    settings: DeploymentSettings,
    capabilities: Capabilities,
) -> list[Object]:
    if spec.kserve and capabilities.kserve:
        served = [inference_service(parent, spec, settings, capabilities)]
    else:
        replicas = _replicas(parent, spec, present, settings, capabilities)
        scaler = autoscaler(parent, spec, settings, capabilities)
        served = [
            deployment(parent, spec, settings, capabilities, replicas=replicas),
            service(parent, spec),
            *([scaler] if scaler else []),
        ]
    policy = network_policy(parent, spec)
    return [*served, disruption_budget(parent, capabilities), *([policy] if policy else [])]


def _replicas(
    parent: Object,
    spec: ModelDeploymentSpec,
    present: Iterable[Object],
    settings: DeploymentSettings,
    capabilities: Capabilities,
) -> int | None:
    """The number to set; None where an autoscaler has it in hand."""
    if spec.autoscaling is None:
        return spec.replicas
    fewest = fewest_replicas(spec, settings, capabilities)
    found = _find_owned(parent, (child for child in present if child["kind"] == "Deployment"))
    if found is None:
        return min(max(fewest, spec.replicas), spec.autoscaling.max)
    # An HPA never leaves zero by itself: there it counts as switched off.
    return fewest if fewest and found["spec"].get("replicas") == 0 else None


def _look(parent: Object, spec: ModelDeploymentSpec, observed: Observed) -> tuple[Servers, str | None]:
    """The servers and their address, by its own Deployment or by the one that KServe made."""
    deployments = [child for child in observed.children if child["kind"] == "Deployment"]
    pods = [child for child in observed.children if child["kind"] == "Pod"]
    if not (spec.kserve and observed.capabilities.kserve):
        mine = _find_owned(parent, deployments)
        name, namespace = parent["metadata"]["name"], parent["metadata"]["namespace"]
        return read_servers(parent, mine, pods), f"http://{name}.{namespace}.svc:{spec.port}"
    inference = _find_owned(parent, (child for child in observed.children if child["kind"] == "InferenceService"))
    if inference is None:
        return Servers(), None
    address = (inference.get("status") or {}).get("address") or {}
    if is_stopped(spec):
        return Servers(exists=True, seen=True), address.get("url")
    return read_servers(parent, _find_owned(inference, deployments), pods), address.get("url")


def _find_owned(owner: Object, children: Iterable[Object]) -> Object | None:
    return next((child for child in children if is_owned(child, owner)), None)


def _left_out(spec: ModelDeploymentSpec, settings: DeploymentSettings, capabilities: Capabilities) -> Iterable[str]:
    """What the spec asks for and this cluster cannot do."""
    kserve = spec.kserve and capabilities.kserve
    if spec.kserve and not capabilities.kserve:
        yield "kserve needs KServe: a Deployment runs the servers instead"
    scaling = spec.autoscaling
    if scaling and scaling.min == 0 and (kserve or not uses_keda(scaling, settings, capabilities)):
        yield "autoscaling.min 0 needs KEDA and a metric from Prometheus: one replica stays"
    if scaling and kserve and scaling.metric not in RESOURCE_METRICS:
        yield f"autoscaling.metric {scaling.metric} cannot be handed to KServe: it scales by its own default"
    if (
        spec.network_policy
        and spec.network_policy.allow_from_namespaces
        and capabilities.minor < _NAMESPACE_LABEL_MINOR
    ):
        yield "networkPolicy.allowFromNamespaces needs the label kubernetes.io/metadata.name, which 1.21 sets by itself"


_SCALING: Final = {"HorizontalPodAutoscaler": "ScalingActive", "ScaledObject": "Ready"}
"""The condition by which each autoscaler tells that it gets its figures."""


def _idle_autoscalers(parent: Object, observed: Observed) -> Iterable[str]:
    """Autoscalers that get no figures: the replicas then stay as many as they are."""
    for child in observed.children:
        if child["kind"] in _SCALING and is_owned(child, parent):
            conditions = (child.get("status") or {}).get("conditions") or []
            active = find_condition(conditions, _SCALING[child["kind"]]) or {}
            if active.get("status") == "False" and active.get("reason") != "ScalingDisabled":
                yield f"autoscaling has no effect: {active.get('message') or active.get('reason')}"
