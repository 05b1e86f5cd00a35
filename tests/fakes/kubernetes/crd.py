"""CustomResourceDefinitions: judged as the API server judges them, then served as kinds of their own."""

import json
from typing import Any, Final

from tests.fakes.kubernetes.errors import Cause, invalid
from tests.fakes.kubernetes.kinds import Custom, Resource, Scale
from tests.fakes.kubernetes.schema import Schema
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]

CRD_BUCKET: Final = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
AGE: Final[Object] = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def judge(document: Object) -> None:
    """422 for a definition that a real server would not take."""
    name, spec = document["metadata"]["name"], document.get("spec") or {}
    causes = list(_name_problems(name, spec))
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        listed = json.dumps([version.get("name") for version in versions])
        text = f"Invalid value: {listed}: must have exactly one version marked as storage version"
        causes.append(Cause(field="spec.versions", reason="FieldValueInvalid", message=text))
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append(
                Cause(field=path, reason="FieldValueRequired", message="Required value: schemas are required")
            )
        else:
            causes += _structural_problems(schema, path, root=True)
    if causes:
        raise invalid("apiextensions.k8s.io", "CustomResourceDefinition", name, causes)


def _name_problems(name: str, spec: Object) -> list[Cause]:
    causes = []
    names = spec.get("names") or {}
    for field in ("plural", "kind"):
        if not names.get(field):
            causes.append(Cause(field=f"spec.names.{field}", reason="FieldValueRequired", message="Required value"))
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if name != wanted:
        text = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        causes.append(Cause(field="metadata.name", reason="FieldValueInvalid", message=text))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        text = f'Unsupported value: "{spec.get("scope", "")}": supported values: "Cluster", "Namespaced"'
        causes.append(Cause(field="spec.scope", reason="FieldValueNotSupported", message=text))
    return causes


def _structural_problems(schema: Object, path: str, *, root: bool = False) -> list[Cause]:
    causes = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and (root or not free):
        text = "Required value: must not be empty for specified object fields"
        if root:
            text = "Required value: must not be empty at the root"
        causes.append(Cause(field=f"{path}.type", reason="FieldValueRequired", message=text))
    if schema.get("type") == "array" and "items" not in schema:
        causes.append(
            Cause(field=f"{path}.items", reason="FieldValueRequired", message="Required value: must be specified")
        )
    if "properties" in schema and schema.get("additionalProperties") is not None:
        text = "Forbidden: additionalProperties and properties are mutual exclusive"
        causes.append(Cause(field=f"{path}.additionalProperties", reason="FieldValueForbidden", message=text))
    if "default" in schema:
        problems = Schema(schema).validate(schema["default"], ".default")
        causes += [Cause(field=f"{path}.{each.field}", reason=each.reason, message=each.message) for each in problems]
    for word in (
        "$ref",
        "definitions",
        "dependencies",
        "deprecated",
        "discriminator",
        "id",
        "patternProperties",
        "readOnly",
        "writeOnly",
    ):
        if word in schema:
            text = "Forbidden: must not be specified"
            causes.append(Cause(field=f"{path}.{word}", reason="FieldValueForbidden", message=text))
    for name, child in (schema.get("properties") or {}).items():
        causes += _structural_problems(child, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            causes += _structural_problems(schema[name], f"{path}.{name}")
    return causes


def complete(document: Object) -> None:
    """Fills in the names and the conversion, in place."""
    spec = document["spec"]
    names = spec["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    spec.setdefault("conversion", {"strategy": "None"})
    finalizers = document["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers and "deletionTimestamp" not in document["metadata"]:
        finalizers.append(CLEANUP)


def established_status(spec: Object) -> Object:
    now = rfc3339()
    conditions = [
        {"type": "NamesAccepted", "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
    ]
    return {
        "acceptedNames": spec["names"],
        "storedVersions": [version["name"] for version in spec["versions"] if version.get("storage")],
        "conditions": [{**each, "status": "True", "lastTransitionTime": now} for each in conditions],
    }


def resources_of(document: Object) -> list[Resource]:
    """The kinds that a definition serves, the newest (first listed) version first."""
    spec = document["spec"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    return [_resource(spec, version, storage) for version in spec["versions"] if version.get("served")]


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _resource(spec: Object, version: Object, storage: str) -> Resource:
    names, subresources = spec["names"], version.get("subresources") or {}
    schema = version["schema"]["openAPIV3Schema"]
    scale = subresources.get("scale")
    return Resource(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names["singular"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(subresources),
        stored_as=storage,
        scale=None
        if scale is None
        else Scale(
            spec=_path(scale["specReplicasPath"]),
            status=_path(scale["statusReplicasPath"]),
            selector=_path(scale.get("labelSelectorPath", "")),
        ),
        custom=Custom(
            schema=Schema(schema),
            openapi=schema,
            columns=tuple(version.get("additionalPrinterColumns") or (AGE,)),
            selectable=tuple(each["jsonPath"].lstrip(".") for each in version.get("selectableFields") or ()),
        ),
    )
