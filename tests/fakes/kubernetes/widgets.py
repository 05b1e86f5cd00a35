"""A small custom kind and small objects, for tests of the test server itself."""

from typing import Any, Final

Object = dict[str, Any]

_SPEC: Final[Object] = {
    "type": "object",
    "required": ["size"],
    "description": "What is wanted.",
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How big it is."},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "parts": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "minLength": 1}, "count": {"type": "integer", "default": 1}},
            },
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[a-z]+$"}},
        "port": {"x-kubernetes-int-or-string": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
_STATUS: Final[Object] = {
    "type": "object",
    "properties": {
        "phase": {"type": "string"},
        "size": {"type": "integer"},
        "conditions": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    },
}
WIDGET: Final[Object] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.dev"},
    "spec": {
        "group": "example.dev",
        "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "additionalPrinterColumns": [
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A widget.",
                        "required": ["spec"],
                        "properties": {"spec": _SPEC, "status": _STATUS},
                    }
                },
            }
        ],
    },
}


def widget(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "example.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }


def pod(name: str, *, labels: dict[str, str] | None = None, owners: list[Object] | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}, "ownerReferences": owners or []},
        "spec": {"containers": [{"name": "main", "image": "x:1"}], **spec},
    }
