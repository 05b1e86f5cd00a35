"""The Tables that kubectl prints: columns of a CRD's printer columns, and a few built-in kinds' own."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.selection import at_path
from tests.fakes.kubernetes.storage import Entry, encode
from tests.fakes.kubernetes.timestamps import age

Object = dict[str, Any]
Cell = Callable[[Object], Any]

_STEP: Final = re.compile(
    r"""\.?(?P<name>[\w-]+(?:\\\.[\w-]+)*)|\[(?P<index>\d+)\]|\[['"](?P<quoted>[^'"]+)['"]\]|\[\?\(@\.(?P<key>\w+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


def json_path(document: Any, path: str) -> Any:
    """The subset of JSONPath that printer columns use: names, indices, `[?(@.type=="Ready")]`."""
    for step in _STEP.finditer(path):
        if step["index"] is not None:
            items = document if isinstance(document, list) else []
            document = items[int(step["index"])] if int(step["index"]) < len(items) else None
        elif step["key"] is not None:
            items = document if isinstance(document, list) else []
            document = next((item for item in items if str(item.get(step["key"])) == step["value"]), None)
        else:
            name = step["quoted"] or step["name"].replace("\\.", ".")
            document = document.get(name) if isinstance(document, dict) else None
    return document


def _get(path: str) -> Cell:
    return lambda document: json_path(document, path)


def _or_none(path: str) -> Cell:
    return lambda document: json_path(document, path) or "<none>"


def _ready_containers(pod: Object) -> str:
    statuses = at_path(pod, ("status", "containerStatuses")) or []
    return f"{sum(bool(each.get('ready')) for each in statuses)}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for each in at_path(pod, ("status", "containerStatuses")) or []:
        state = each.get("state") or {}
        reason = (state.get("waiting") or {}).get("reason") or (state.get("terminated") or {}).get("reason")
        if reason:
            return str(reason)
    return str(at_path(pod, ("status", "reason")) or at_path(pod, ("status", "phase")))


def _restarts(pod: Object) -> int:
    return sum(each.get("restartCount", 0) for each in at_path(pod, ("status", "containerStatuses")) or [])


def _of(path: str, total: str) -> Cell:
    return lambda document: f"{json_path(document, path) or 0}/{json_path(document, total) or 0}"


def _ports(service: Object) -> str:
    listed = service["spec"].get("ports") or []
    return ",".join(f"{port['port']}/{port['protocol']}" for port in listed) or "<none>"


def _node_status(node: Object) -> str:
    conditions = at_path(node, ("status", "conditions")) or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    text = "Ready" if ready else "NotReady"
    return f"{text},SchedulingDisabled" if at_path(node, ("spec", "unschedulable")) else text


_BUILT_IN: Final[dict[str, tuple[tuple[str, Cell, int], ...]]] = {
    "pods": (
        ("Ready", _ready_containers, 0),
        ("Status", _pod_status, 0),
        ("Restarts", _restarts, 0),
        ("IP", _or_none(".status.podIP"), 1),
        ("Node", _or_none(".spec.nodeName"), 1),
    ),
    "services": (("Type", _get(".spec.type"), 0), ("Cluster-IP", _get(".spec.clusterIP"), 0), ("Port(s)", _ports, 0)),
    "deployments.apps": (
        ("Ready", _of(".status.readyReplicas", ".spec.replicas"), 0),
        ("Up-to-date", lambda document: json_path(document, ".status.updatedReplicas") or 0, 0),
        ("Available", lambda document: json_path(document, ".status.availableReplicas") or 0, 0),
    ),
    "replicasets.apps": (
        ("Desired", _get(".spec.replicas"), 0),
        ("Current", lambda document: json_path(document, ".status.replicas") or 0, 0),
        ("Ready", lambda document: json_path(document, ".status.readyReplicas") or 0, 0),
    ),
    "jobs.batch": (("Completions", _of(".status.succeeded", ".spec.completions"), 0),),
    "nodes": (("Status", _node_status, 0),),
    "namespaces": (("Status", _get(".status.phase"), 0),),
    "events": (("Type", _get(".type"), 0), ("Reason", _get(".reason"), 0), ("Message", _get(".message"), 0)),
    "leases.coordination.k8s.io": (("Holder", _get(".spec.holderIdentity"), 0),),
    "customresourcedefinitions.apiextensions.k8s.io": (("Created At", _get(".metadata.creationTimestamp"), 0),),
}


def _column(name: str, kind: str = "string", format_: str = "", priority: int = 0) -> Object:
    return {"name": name, "type": kind, "format": format_, "description": name, "priority": priority}


def _custom_cell(column: Object, document: Object) -> Any:
    value = json_path(document, column["jsonPath"])
    if column["type"] == "date":
        return age(value) if value else "<unknown>"
    if value is None:
        return ""
    if column["type"] == "string" and not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return value


def _columns_and_cells(resource: Resource) -> tuple[list[Object], Callable[[Object], list[Any]]]:
    name = _column("Name", format_="name")
    if resource.custom:
        columns = resource.custom.columns
        described = [
            _column(each["name"], each["type"], each.get("format", ""), each.get("priority", 0)) for each in columns
        ]
        return [name, *described], lambda document: [
            document["metadata"]["name"],
            *(_custom_cell(column, document) for column in columns),
        ]
    own = _BUILT_IN.get(resource.bucket, ())
    described = [_column(each[0], priority=each[2]) for each in own]
    return [name, *described, _column("Age")], lambda document: [
        document["metadata"]["name"],
        *(cell(document) for _, cell, _ in own),
        age(document["metadata"]["creationTimestamp"]),
    ]


def table(resource: Resource, entries: list[Entry], metadata: Object, include: str = "Metadata") -> bytes:
    """A Table of objects; `include` tells how much of each object goes along: None, Metadata or Object."""
    columns, cells = _columns_and_cells(resource)
    rows = []
    for entry in entries:
        row: Object = {"cells": cells(entry.object)}
        if include == "Metadata":
            row["object"] = partial_metadata(entry)
        elif include == "Object":
            row["object"] = entry.object
        rows.append(row)
    head = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return encode({**head, "columnDefinitions": columns, "rows": rows})


def partial_metadata(entry: Entry) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": entry.object["metadata"]}
