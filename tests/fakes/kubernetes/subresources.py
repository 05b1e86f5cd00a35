"""Subresources that are more than a part of the object: scale, binding and eviction."""

from typing import Any

from tests.fakes.kubernetes.deletion import delete, read_options
from tests.fakes.kubernetes.errors import Cause, bad_request, conflict, invalid, too_many_requests
from tests.fakes.kubernetes.operations import MERGE, Address, Operations, WriteOptions
from tests.fakes.kubernetes.selection import at_path, by_selector
from tests.fakes.kubernetes.storage import Entry, Object, encode
from tests.fakes.kubernetes.timestamps import rfc3339


def _entry(document: Object) -> Entry:
    return Entry(document, encode(document))


def success() -> Entry:
    return _entry({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


def scale_of(address: Address, entry: Entry) -> Entry:
    """The Scale of an object."""
    paths = address.resource.scale
    assert paths is not None
    metadata = entry.object["metadata"]
    if address.resource.custom:
        selector = at_path(entry.object, paths.selector) if paths.selector else None
    else:
        selector = _selector_text(entry.object)
    status: Object = {"replicas": at_path(entry.object, paths.status) or 0}
    if selector:
        status["selector"] = selector
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return _entry(
        {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: metadata[name] for name in names if name in metadata},
            "spec": {"replicas": at_path(entry.object, paths.spec) or 0},
            "status": status,
        }
    )


def _selector_text(document: Object) -> str:
    labels = at_path(document, ("spec", "selector", "matchLabels")) or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def write_scale(operations: Operations, address: Address, scale: Object, options: WriteOptions) -> Entry:
    """Sets the replicas of the object that a Scale stands for."""
    paths = address.resource.scale
    assert paths is not None
    replicas = at_path(scale, ("spec", "replicas"))
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = Cause(field="spec.replicas", reason="FieldValueInvalid", message=text)
        raise invalid("autoscaling", "Scale", address.name, [cause])
    body: Any = replicas
    for name in reversed(paths.spec):
        body = {name: body}
    if version := at_path(scale, ("metadata", "resourceVersion")):
        body["metadata"] = {"resourceVersion": version}
    whole = Address(resource=address.resource, namespace=address.namespace, name=address.name)
    return scale_of(address, operations.patch(whole, body, MERGE, options)[0])


def bind(operations: Operations, address: Address, binding: Object) -> Entry:
    """Puts a Pod on a node, once."""
    node = at_path(binding, ("target", "name"))
    if not node:
        raise bad_request("a binding must have target.name, got none")
    entry = operations.get(address)
    present = entry.object["spec"].get("nodeName")
    if present:
        raise conflict("", "pods/binding", address.name, f'pod {address.name} is already assigned to node "{present}"')
    if "deletionTimestamp" in entry.object["metadata"]:
        raise conflict(
            "", "pods/binding", address.name, f"pod {address.name} is being deleted, cannot be assigned to a host"
        )

    def edit(document: Object) -> None:
        document["spec"]["nodeName"] = node
        status = document.setdefault("status", {})
        others = [each for each in status.get("conditions") or [] if each["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": rfc3339()}
        status["conditions"] = [*others, scheduled]

    operations.change(address.resource, address.key, edit)
    return success()


def evict(operations: Operations, address: Address, eviction: Object) -> Entry:
    """Deletes a Pod unless a disruption budget forbids it: 429."""
    pod = operations.get(address).object
    for _, budget in operations.store.items("poddisruptionbudgets.policy", address.namespace):
        selects = by_selector(budget.object["spec"].get("selector"))
        allowed = at_path(budget.object, ("status", "disruptionsAllowed")) or 0
        if selects(pod["metadata"].get("labels") or {}) and allowed <= 0:
            error = too_many_requests(10)
            error.message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise error
    delete(operations, address, read_options(eviction.get("deleteOptions"), {}))
    return success()
