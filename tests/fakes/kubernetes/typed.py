"""Schemas of the built-in kinds, read from the models of the `kubernetes` package: a misspelt or mistyped field of
a Pod is refused as a real server refuses it, and `kubectl explain` has something to explain.

Required fields are taken from the models too; rules between fields are in `admission.py`.
"""

import re
from functools import cache
from typing import Any, Final

from tests.fakes.kubernetes.schema import Schema

Object = dict[str, Any]

_PLAIN: Final[dict[str, Object]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string"},
    "object": {"x-kubernetes-preserve-unknown-fields": True},
}
_QUANTITIES: Final = frozenset(
    {"limits", "requests", "capacity", "allocatable", "hard", "used", "overhead", "min", "max"}
)
_QUANTITY: Final[Object] = {"x-kubernetes-int-or-string": True}
_CONTAINER: Final = re.compile(r"^(?P<kind>list|dict)[\[(](?:str, ?)?(?P<inner>.+)[\])]$", re.IGNORECASE)


def schema_name(model: str) -> str:
    """`#/components/schemas/...` of a model."""
    return f"io.k8s.api.{model}"


def _of_type(text: str) -> Object:
    if text in _PLAIN:
        return dict(_PLAIN[text])
    if found := _CONTAINER.match(text):
        inner = _of_type(found["inner"])
        if found["kind"].lower() == "list":
            return {"type": "array", "items": inner}
        return {"type": "object", "additionalProperties": inner or True}
    return {"$ref": f"#/components/schemas/{schema_name(text)}"}


@cache
def document(model: str) -> Object:
    """The OpenAPI document of one model; other models are referred to."""
    from kubernetes.client import models  # half a second: only for tests that write built-in kinds

    cls = getattr(models, model)
    properties, required = {}, []
    for attribute, text in cls.openapi_types.items():
        name = cls.attribute_map[attribute]
        described = _of_type(text)
        if name in _QUANTITIES and described.get("type") == "object":
            described["additionalProperties"] = dict(_QUANTITY)
        info = cls.model_fields.get(attribute)
        if info is not None and info.is_required():
            required.append(name)
        properties[name] = described
    if not properties:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _resolve(reference: str) -> Object:
    return document(reference.rpartition(".")[2])


@cache
def schema(model: str) -> Schema:
    return Schema(document(model), _resolve)


def components(model: str) -> dict[str, Object]:
    """A model and every model that it needs, by schema name."""
    found: dict[str, Object] = {}
    waiting = [model]
    while waiting:
        name = waiting.pop()
        if schema_name(name) in found:
            continue
        found[schema_name(name)] = document(name)
        waiting += re.findall(r"#/components/schemas/io\.k8s\.api\.(\w+)", repr(document(name)))
    return found
