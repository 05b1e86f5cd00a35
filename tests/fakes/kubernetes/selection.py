"""Label and field selectors: text of a query string in, a predicate on objects out."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from tests.fakes.kubernetes.errors import bad_request

Object = dict[str, Any]
Predicate = Callable[[Object], bool]
Labels = Mapping[str, str]

_SETS: Final = re.compile(r"^(?P<key>\S+)\s+(?P<not>not)?in\s*\((?P<values>[^)]*)\)$")
_EQUALS: Final = re.compile(r"^(?P<key>[^\s!=]+)\s*(?P<op>==|!=|=)\s*(?P<value>[^\s!=]*)$")
_KEY: Final = re.compile(r"^(?P<not>!)?\s*(?P<key>[A-Za-z0-9][A-Za-z0-9_./-]*)$")

FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "events": frozenset(
        {
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "jobs.batch": frozenset({"status.successful"}),
    "replicasets.apps": frozenset({"status.replicas"}),
}


def _split(text: str) -> list[str]:
    """At commas outside parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _requirement(text: str) -> Callable[[Labels], bool]:
    if found := _SETS.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["not"]:
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    if found := _EQUALS.match(text):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _KEY.match(text):
        key = found["key"]
        if found["not"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise bad_request(f"unable to parse requirement: found {text!r}, expected a label selector")


@lru_cache(maxsize=512)
def by_labels(text: str) -> Callable[[Labels], bool]:
    """A predicate on labels for `a=b,c!=d,e in (f,g),!h`."""
    requirements = [_requirement(part) for part in _split(text)]
    return lambda labels: all(holds(labels) for holds in requirements)


def by_selector(selector: Object | None) -> Callable[[Labels], bool]:
    """A predicate on labels for a LabelSelector object; none selects nothing, an empty one everything."""
    if selector is None:
        return lambda labels: False
    wanted = selector.get("matchLabels") or {}
    parts = [f"{key}={value}" for key, value in wanted.items()]
    for each in selector.get("matchExpressions") or []:
        values = ",".join(each.get("values") or [])
        key, operator = each["key"], each["operator"]
        parts.append(
            {"Exists": key, "DoesNotExist": f"!{key}", "In": f"{key} in ({values})"}.get(
                operator, f"{key} notin ({values})"
            )
        )
    return by_labels(",".join(parts))


def at_path(document: Any, path: tuple[str, ...]) -> Any:
    """The value at a path, None where there is none."""
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def by_fields(text: str, bucket: str, selectable: tuple[str, ...] = ()) -> Predicate:
    """A predicate for `metadata.name=a,status.phase!=Failed`; a field that the kind does not offer is a 400."""
    allowed = {"metadata.name", "metadata.namespace"} | FIELDS.get(bucket, frozenset()) | set(selectable)
    checks: list[Predicate] = []
    for part in _split(text):
        found = _EQUALS.match(part)
        if found is None:
            raise bad_request(f"invalid selector: {part!r}; can't understand it, expected field=value")
        if found["key"] not in allowed:
            raise bad_request(f"field label not supported: {found['key']}")
        checks.append(_field_check(tuple(found["key"].split(".")), found["value"], found["op"] != "!="))
    return lambda document: all(check(document) for check in checks)


def _field_check(path: tuple[str, ...], wanted: str, equal: bool) -> Predicate:
    default = "false" if path == ("spec", "unschedulable") else ""
    return lambda document: ((_as_text(at_path(document, path)) or default) == wanted) is equal


def selection(labels: str, fields: str, bucket: str, selectable: tuple[str, ...] = ()) -> Predicate | None:
    """Both selectors as one predicate; None where everything is selected."""
    if not labels and not fields:
        return None
    holds = by_labels(labels)
    check = by_fields(fields, bucket, selectable)
    return lambda document: holds(document["metadata"].get("labels") or {}) and check(document)
