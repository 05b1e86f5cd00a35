"""What the API server itself writes into built-in objects: clients must not take these for edits by strangers."""

import base64
import itertools
from collections.abc import Callable
from typing import Any, Final

Object = dict[str, Any]

_addresses: Final = itertools.count(1)


def _fill(target: Object, **values: Any) -> None:
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def pod_spec(spec: Object) -> None:
    _fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        for source, mode in (("configMap", "defaultMode"), ("secret", "defaultMode")):
            if source in volume:
                _fill(volume[source], **{mode: 420})


def _container(container: Object) -> None:
    tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
    _fill(
        container,
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if tag in ("", "latest") else "IfNotPresent",
        resources={},
    )
    for port in container.get("ports") or []:
        _fill(port, protocol="TCP")
    for variable in container.get("env") or []:
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field:
            _fill(field, apiVersion="v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            _fill(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if "httpGet" in probe:
                _fill(probe["httpGet"], path="/", scheme="HTTP")
    resources = container["resources"]
    for name, value in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, value)


def _pod(document: Object) -> None:
    spec = document.setdefault("spec", {})
    pod_spec(spec)
    _fill(spec, serviceAccountName="default", enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority")
    _fill(spec, priority=0, serviceAccount=spec["serviceAccountName"])
    seconds = {"effect": "NoExecute", "operator": "Exists", "tolerationSeconds": 300}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        tolerations = spec.setdefault("tolerations", [])
        if not any(
            each.get("key") in (key, None) and each.get("effect") in ("NoExecute", None) for each in tolerations
        ):
            tolerations.append({"key": key, **seconds})


def _service(document: Object) -> None:
    spec = document.setdefault("spec", {})
    _fill(spec, type="ClusterIP", sessionAffinity="None")
    for port in spec.get("ports") or []:
        _fill(port, protocol="TCP", targetPort=port.get("port"))
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        number = next(_addresses)
        spec["clusterIP"] = f"10.96.{number // 250 % 250}.{number % 250 + 1}"
    _fill(
        spec,
        clusterIPs=[spec["clusterIP"]],
        internalTrafficPolicy="Cluster",
        ipFamilies=["IPv4"],
        ipFamilyPolicy="SingleStack",
    )


def _template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}))


def _deployment(document: Object) -> None:
    spec = document.setdefault("spec", {})
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={"type": "RollingUpdate"})
    if spec["strategy"].get("type", "RollingUpdate") == "RollingUpdate":
        _fill(spec["strategy"], type="RollingUpdate", rollingUpdate={})
        _fill(spec["strategy"]["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _template(spec)


def _replica_set(document: Object) -> None:
    spec = document.setdefault("spec", {})
    _fill(spec, replicas=1)
    _template(spec)


def _job(document: Object) -> None:
    spec, uid = document.setdefault("spec", {}), document["metadata"].get("uid", "")
    _fill(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    if spec.get("parallelism") == 1:
        _fill(spec, completions=1)
    _template(spec)
    labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": document["metadata"]["name"]}
    if uid and not spec.get("selector"):
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        own = spec["template"]["metadata"].setdefault("labels", {})
        own.update({**labels, "controller-uid": uid, "job-name": document["metadata"]["name"]})


def _autoscaler(document: Object) -> None:
    _fill(document.setdefault("spec", {}), minReplicas=1)


def _network_policy(document: Object) -> None:
    spec = document.setdefault("spec", {})
    _fill(spec, podSelector={}, policyTypes=["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
    for rule in [*(spec.get("ingress") or []), *(spec.get("egress") or [])]:
        for port in rule.get("ports") or []:
            _fill(port, protocol="TCP")


def _namespace(document: Object) -> None:
    metadata = document["metadata"]
    metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
    document.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])


def _claim(document: Object) -> None:
    _fill(document.setdefault("spec", {}), volumeMode="Filesystem")


def _secret(document: Object) -> None:
    """`stringData` is write-only: it becomes `data`."""
    _fill(document, type="Opaque")
    for name, value in (document.pop("stringData", None) or {}).items():
        document.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()


_BY_BUCKET: Final[dict[str, Callable[[Object], None]]] = {
    "pods": _pod,
    "services": _service,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "jobs.batch": _job,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "networkpolicies.networking.k8s.io": _network_policy,
    "namespaces": _namespace,
    "persistentvolumeclaims": _claim,
    "secrets": _secret,
}
_FIRST_STATUS: Final[dict[str, Object]] = {
    "pods": {"phase": "Pending", "qosClass": "Burstable"},
    "namespaces": {"phase": "Active"},
    "services": {"loadBalancer": {}},
    "persistentvolumeclaims": {"phase": "Pending"},
    "replicasets.apps": {"replicas": 0},
}


def fill_in(bucket: str, document: Object) -> None:
    """Defaults of a built-in kind, in place."""
    if bucket in _BY_BUCKET:
        _BY_BUCKET[bucket](document)


def first_status(bucket: str, document: Object) -> None:
    """The status of a new built-in object: never the client's, except a Node's (kubelets register with theirs)."""
    if bucket == "nodes":
        return
    document.pop("status", None)
    if bucket in _FIRST_STATUS:
        document["status"] = dict(_FIRST_STATUS[bucket])
    elif bucket.partition(".")[0] in ("deployments", "statefulsets", "jobs"):
        document["status"] = {}
