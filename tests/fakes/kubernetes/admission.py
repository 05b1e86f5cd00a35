"""Rules of built-in kinds that no schema tells, and what admission plugins refuse: the mistakes an operator makes."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tests.fakes.kubernetes.errors import ApiError, Cause, bad_request, forbidden, invalid
from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.metadata import label_problems
from tests.fakes.kubernetes.quantities import parse_quantity
from tests.fakes.kubernetes.selection import at_path, by_selector
from tests.fakes.kubernetes.storage import Store
from tests.fakes.kubernetes.typed import schema

Object = dict[str, Any]

_LABEL: Final = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_ENV_NAME: Final = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
_SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_MUTABLE_POD: Final = frozenset(
    {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"}
)
_IMMUTABLE: Final[dict[str, tuple[str, ...]]] = {
    "deployments.apps": ("selector",),
    "replicasets.apps": ("selector",),
    "jobs.batch": ("selector", "template", "completionMode"),
    "services": ("clusterIP",),
    "persistentvolumeclaims": ("accessModes", "storageClassName", "volumeName"),
}


def check_fields(resource: Resource, document: Object, *, strict: bool) -> list[str]:
    """Prunes unknown fields of a built-in kind and returns them; a wrong type is a 400, a missing field a 422."""
    if not resource.model:
        return []
    known = schema(resource.model)
    unknown = known.prune(document)
    causes = known.validate(document)
    wrong = [cause for cause in causes if cause.reason == "FieldValueTypeInvalid"]
    if wrong:
        version = resource.version
        raise bad_request(f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: {wrong[0]}')
    causes = [cause for cause in causes if not cause.field.startswith("status.")]  # absent is Go's zero there
    if causes:
        raise invalid(resource.group, resource.kind, document["metadata"]["name"], causes)
    if unknown and strict:
        return unknown
    return []


def _bad(field: str, value: Any, rule: str) -> Cause:
    shown = json.dumps(value)
    return Cause(field=field, reason="FieldValueInvalid", message=f"Invalid value: {shown}: {rule}")


def _required(field: str) -> Cause:
    return Cause(field=field, reason="FieldValueRequired", message="Required value")


def _container_problems(containers: list[Object], path: str, volumes: set[str]) -> Iterator[Cause]:
    names: set[str] = set()
    for index, container in enumerate(containers):
        here, name = f"{path}[{index}]", container.get("name", "")
        if not _LABEL.match(name):
            yield _bad(
                f"{here}.name", name, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters"
            )
        if name in names:
            yield Cause(field=f"{here}.name", reason="FieldValueDuplicate", message=f'Duplicate value: "{name}"')
        names.add(name)
        if not container.get("image"):
            yield _required(f"{here}.image")
        for place, variable in enumerate(container.get("env") or []):
            if not _ENV_NAME.match(variable.get("name", "")):
                yield _bad(f"{here}.env[{place}].name", variable.get("name", ""), "a valid environment variable name")
            if variable.get("value") and variable.get("valueFrom"):
                yield _bad(f"{here}.env[{place}].valueFrom", "", "may not be specified when `value` is not empty")
        for place, mount in enumerate(container.get("volumeMounts") or []):
            if mount["name"] not in volumes:
                message = f'Not found: "{mount["name"]}"'
                yield Cause(field=f"{here}.volumeMounts[{place}].name", reason="FieldValueNotFound", message=message)
        yield from _resource_problems(container.get("resources") or {}, f"{here}.resources")


def _resource_problems(resources: Object, path: str) -> Iterator[Cause]:
    for name, request in (resources.get("requests") or {}).items():
        try:
            limit = (resources.get("limits") or {}).get(name)
            too_much = limit is not None and parse_quantity(request) > parse_quantity(limit)
        except ValueError as error:
            yield _bad(f"{path}.requests[{name}]", request, str(error))
            continue
        if too_much:
            yield _bad(f"{path}.requests", request, f"must be less than or equal to {name} limit of {limit}")
        if "/" in name and limit is None:
            yield _required(f"{path}.limits[{name}]")


def pod_problems(spec: Object, path: str = "spec") -> list[Cause]:
    causes: list[Cause] = []
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    if not spec.get("containers"):
        causes.append(_required(f"{path}.containers"))
    for name in ("initContainers", "containers"):
        causes += _container_problems(spec.get(name) or [], f"{path}.{name}", volumes)
    policy = spec.get("restartPolicy")
    if policy not in ("Always", "OnFailure", "Never"):
        text = f'Unsupported value: "{policy}": supported values: "Always", "Never", "OnFailure"'
        causes.append(Cause(field=f"{path}.restartPolicy", reason="FieldValueNotSupported", message=text))
    for name in ("hostname", "subdomain"):
        if spec.get(name) and not _LABEL.match(spec[name]):
            causes.append(_bad(f"{path}.{name}", spec[name], "a lowercase RFC 1123 label of at most 63 characters"))
    return causes


def _workload_problems(spec: Object, kind: str) -> list[Cause]:
    template = spec.get("template") or {}
    labels = at_path(template, ("metadata", "labels")) or {}
    causes = pod_problems(template.get("spec") or {}, "spec.template.spec")
    causes += label_problems(labels, "spec.template.labels")
    if kind == "Job":
        if at_path(template, ("spec", "restartPolicy")) == "Always":
            text = 'Unsupported value: "Always": supported values: "OnFailure", "Never"'
            causes.append(
                Cause(field="spec.template.spec.restartPolicy", reason="FieldValueNotSupported", message=text)
            )
    elif not spec.get("selector"):
        causes.append(_required("spec.selector"))
    elif not by_selector(spec["selector"])(labels):
        causes.append(_bad("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    return causes


def problems(resource: Resource, document: Object) -> list[Cause]:
    """Violations of a built-in object that its types do not show."""
    spec = document.get("spec") or {}
    if resource.kind == "Pod":
        return pod_problems(spec)
    if resource.kind in ("Deployment", "ReplicaSet", "Job"):
        return _workload_problems(spec, resource.kind)
    if resource.kind == "Service" and not spec.get("ports") and spec.get("clusterIP") != "None":
        return [] if spec.get("type") == "ExternalName" else [_required("spec.ports")]
    return []


def changes_refused(resource: Resource, document: Object, old: Object) -> list[Cause]:
    """Fields of a built-in object that nobody may change."""
    before, after = old.get("spec") or {}, document.get("spec") or {}
    if resource.kind == "Pod" and _frozen(before) != _frozen(after):
        text = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions "
            "to existing tolerations),`spec.terminationGracePeriodSeconds`"
        )
        return [Cause(field="spec", reason="FieldValueForbidden", message=text)]
    fields = _IMMUTABLE.get(resource.bucket, ())
    causes = [
        _bad(f"spec.{name}", after.get(name), "field is immutable")
        for name in fields
        if before.get(name) != after.get(name)
    ]
    if old.get("immutable") and any(
        old.get(name) != document.get(name) for name in ("data", "binaryData", "immutable")
    ):
        causes.append(
            Cause(
                field="data",
                reason="FieldValueForbidden",
                message="Forbidden: field is immutable when `immutable` is set",
            )
        )
    return causes


def _frozen(spec: Object) -> Object:
    kept = {name: value for name, value in spec.items() if name not in _MUTABLE_POD}
    for name in ("containers", "initContainers"):
        if name in kept:
            kept[name] = [{**container, "image": ""} for container in kept[name]]
    return kept


def admit(store: Store, resource: Resource, document: Object) -> None:
    """What the admission plugins of a new object say: namespace, service account, priority class."""
    metadata = document["metadata"]
    if resource.namespaced:
        _admit_namespace(store, resource, metadata)
    if resource.kind == "Pod":
        _admit_pod(store, document)


def _admit_namespace(store: Store, resource: Resource, metadata: Object) -> None:
    namespace = metadata["namespace"]
    entry = store.get("namespaces", ("", namespace))
    if entry is None:
        raise ApiError(
            404, "NotFound", f'namespaces "{namespace}" not found', details={"name": namespace, "kind": "namespaces"}
        )
    if "deletionTimestamp" in entry.object["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = forbidden(resource.group, resource.plural, metadata["name"], why)
        error.details = {
            **(error.details or {}),
            "causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}],
        }
        raise error


def _admit_pod(store: Store, document: Object) -> None:
    spec, metadata = document["spec"], document["metadata"]
    account = spec["serviceAccountName"]
    if store.get("serviceaccounts", (metadata["namespace"], account)) is None:
        why = (
            f'error looking up service account {metadata["namespace"]}/{account}: serviceaccount "{account}" not found'
        )
        raise forbidden("", "pods", metadata["name"], why)
    if name := spec.get("priorityClassName"):
        found = store.get("priorityclasses.scheduling.k8s.io", ("", name))
        if found is None and name not in _SYSTEM_PRIORITIES:
            raise forbidden("", "pods", metadata["name"], f"no PriorityClass with name {name} was found")
        spec["priority"] = found.object["value"] if found else _SYSTEM_PRIORITIES[name]
