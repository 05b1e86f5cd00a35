"""OpenAPI v3, as much as kubectl needs: schemas for `explain`, and the sign that the server validates fields."""

import hashlib
from typing import Any

from tests.fakes.kubernetes import typed
from tests.fakes.kubernetes.errors import unknown_path
from tests.fakes.kubernetes.kinds import Catalog, Resource

Object = dict[str, Any]


def _path_of(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(catalog: Catalog) -> Object:
    """Where each group and version's document is; the hash changes with its kinds."""
    paths = {}
    for each in catalog:
        path = _path_of(each.group, each.version)
        mine = [other for other in catalog if (other.group, other.version) == (each.group, each.version)]
        kinds = repr([(other.kind, other.custom and other.custom.openapi) for other in mine])
        digest = hashlib.sha256(kinds.encode()).hexdigest()[:32].upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def _schema_name(resource: Resource) -> str:
    if resource.model:
        return typed.schema_name(resource.model)
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _schemas(resource: Resource) -> dict[str, Object]:
    name = _schema_name(resource)
    identity = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    if resource.model:
        found = typed.components(resource.model)
        return {**found, name: {**found[name], "x-kubernetes-group-version-kind": [identity]}}
    anything: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    openapi = resource.custom.openapi if resource.custom else anything
    metadata = typed.schema_name("V1ObjectMeta")
    properties: Object = {
        "apiVersion": {"type": "string", "description": "Versioned schema of this representation of an object."},
        "kind": {"type": "string", "description": "The REST resource that this object represents."},
        **(openapi.get("properties") or {}),
        "metadata": {
            "allOf": [{"$ref": f"#/components/schemas/{metadata}"}],
            "description": "Standard object's metadata.",
        },
    }
    schema = {**openapi, "properties": properties, "x-kubernetes-group-version-kind": [identity]}
    return {**typed.components("V1ObjectMeta"), name: schema}


def _operations(resource: Resource) -> dict[str, Object]:
    prefix = f"/{_path_of(resource.group, resource.version)}/"
    prefix += f"namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else resource.plural
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    names = ("dryRun", "fieldManager", "fieldValidation")
    parameters = [{"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names]
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}

    def operation(action: str) -> Object:
        return {
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }

    return {
        prefix: {"get": operation("list"), "post": operation("post")},
        f"{prefix}/{{name}}": {"get": operation("get"), "put": operation("put"), "patch": operation("patch")},
    }


def document(catalog: Catalog, group: str, version: str) -> Object:
    found = [each for each in catalog if (each.group, each.version) == (group, version)]
    if not found:
        raise unknown_path()
    schemas: Object = {}
    paths: Object = {}
    for each in found:
        schemas.update(
            {
                name: value
                for name, value in _schemas(each).items()
                if name not in schemas or "x-kubernetes-group-version-kind" in value
            }
        )
        paths.update(_operations(each))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
