"""The built-in kinds that the test API server knows, and the catalogue that custom kinds join while it runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.fakes.kubernetes.schema import Schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("status", "selector")


@dataclass(frozen=True, kw_only=True, slots=True)
class Custom:
    """What a CRD adds to a version of its kind."""

    schema: Schema
    openapi: dict[str, Any]
    columns: tuple[dict[str, Any], ...] = ()
    selectable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    counts_generations: bool = True
    scale: Scale | None = None
    custom: Custom | None = None
    stored_as: str = ""
    """The version in which the bucket holds the kind; empty: this one."""
    model: str = ""
    """Class of the `kubernetes` package that knows the fields; empty: fields are not checked."""
    minors: range = field(default=range(0, 1000))
    """Minor versions of the server that serve it."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_api_version(self) -> str:
        version = self.stored_as or self.version
        return f"{self.group}/{version}" if self.group else version

    @property
    def bucket(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _kind(group_version: str, kind: str, plural: str, short: str = "", *subresources: str, **rest: Any) -> Resource:
    group, _, version = group_version.rpartition("/")
    rest.setdefault("model", f"{version.title()}{kind}")
    rest.setdefault("scale", Scale() if "scale" in subresources else None)
    return Resource(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        short_names=tuple(short.split()),
        subresources=frozenset(subresources),
        **rest,
    )


_CLUSTER: Final[dict[str, Any]] = {"namespaced": False}
_UNCOUNTED: Final[dict[str, Any]] = {"counts_generations": False}
_ALL: Final[dict[str, Any]] = {"categories": ("all",)}
_RBAC: Final = "rbac.authorization.k8s.io/v1"

BUILT_IN: Final = (
    _kind("v1", "Namespace", "namespaces", "ns", "status", "finalize", **_CLUSTER, **_UNCOUNTED),
    _kind("v1", "Pod", "pods", "po", "status", "binding", "eviction", "log", **_ALL, **_UNCOUNTED),
    _kind("v1", "Service", "services", "svc", "status", **_ALL, **_UNCOUNTED),
    _kind("v1", "ConfigMap", "configmaps", "cm", **_UNCOUNTED),
    _kind("v1", "Secret", "secrets", **_UNCOUNTED),
    _kind("v1", "Event", "events", "ev", model="CoreV1Event", **_UNCOUNTED),
    _kind("v1", "Node", "nodes", "no", "status", **_CLUSTER, **_UNCOUNTED),
    _kind("v1", "ServiceAccount", "serviceaccounts", "sa", **_UNCOUNTED),
    _kind("v1", "Endpoints", "endpoints", "ep", **_UNCOUNTED),
    _kind("v1", "PersistentVolume", "persistentvolumes", "pv", "status", **_CLUSTER, **_UNCOUNTED),
    _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "status", **_UNCOUNTED),
    _kind("v1", "ResourceQuota", "resourcequotas", "quota", "status", **_UNCOUNTED),
    _kind("v1", "LimitRange", "limitranges", "limits", **_UNCOUNTED),
    _kind("apps/v1", "Deployment", "deployments", "deploy", "status", "scale", **_ALL),
    _kind("apps/v1", "ReplicaSet", "replicasets", "rs", "status", "scale", **_ALL),
    _kind("apps/v1", "StatefulSet", "statefulsets", "sts", "status", "scale", **_ALL),
    _kind("apps/v1", "DaemonSet", "daemonsets", "ds", "status", **_ALL),
    _kind("batch/v1", "Job", "jobs", "", "status", **_ALL),
    _kind("batch/v1", "CronJob", "cronjobs", "cj", "status", minors=range(21, 1000), **_ALL),
    _kind(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        "status",
        minors=range(23, 1000),
        **_ALL,
        **_UNCOUNTED,
    ),
    _kind(
        "autoscaling/v2beta2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        "status",
        minors=range(12, 26),
        model="",
        stored_as="v2",
        **_ALL,
        **_UNCOUNTED,
    ),
    _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", "status", minors=range(21, 1000)),
    _kind(
        "policy/v1beta1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "pdb",
        "status",
        minors=range(0, 25),
        model="",
        stored_as="v1",
    ),
    _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol"),
    _kind("networking.k8s.io/v1", "Ingress", "ingresses", "ing", "status"),
    _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", **_CLUSTER, **_UNCOUNTED),
    _kind("coordination.k8s.io/v1", "Lease", "leases", **_UNCOUNTED),
    _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", **_UNCOUNTED),
    _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", **_CLUSTER, **_UNCOUNTED),
    _kind(_RBAC, "Role", "roles", **_UNCOUNTED),
    _kind(_RBAC, "RoleBinding", "rolebindings", **_UNCOUNTED),
    _kind(_RBAC, "ClusterRole", "clusterroles", **_CLUSTER, **_UNCOUNTED),
    _kind(_RBAC, "ClusterRoleBinding", "clusterrolebindings", **_CLUSTER, **_UNCOUNTED),
    _kind(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd crds",
        "status",
        model="",
        **_CLUSTER,
    ),
)
"""Group versions of a kind stand newest first: discovery prefers the first."""


class Catalog:
    """Every kind that is served at this moment."""

    def __init__(self, minor: int) -> None:
        served = (self._settle(each, minor) for each in BUILT_IN if minor in each.minors)
        self._resources = {(each.group, each.version, each.plural): each for each in served}

    @staticmethod
    def _settle(resource: Resource, minor: int) -> Resource:
        """An old server stores what it serves."""
        newest = {"v2": range(23, 1000), "v1": range(21, 1000)}.get(resource.stored_as)
        return resource if newest is None or minor in newest else replace(resource, stored_as="")

    def __iter__(self) -> Iterator[Resource]:
        return iter(tuple(self._resources.values()))

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._resources.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        return next((each for each in self if each.api_version == api_version and each.kind == kind), None)

    def of_bucket(self, bucket: str) -> Resource | None:
        """The stored version of the kind that lives in a bucket."""
        mine = [each for each in self if each.bucket == bucket]
        return next(
            (each for each in mine if each.version == (each.stored_as or each.version)), mine[0] if mine else None
        )

    def add(self, resource: Resource) -> None:
        self._resources[resource.group, resource.version, resource.plural] = resource

    def remove_bucket(self, bucket: str) -> None:
        self._resources = {key: each for key, each in self._resources.items() if each.bucket != bucket}

    def groups(self) -> dict[str, list[str]]:
        """Versions of each group, preferred first."""
        found: dict[str, list[str]] = {}
        for each in self:
            versions = found.setdefault(each.group, [])
            if each.version not in versions:
                versions.append(each.version)
        return found
