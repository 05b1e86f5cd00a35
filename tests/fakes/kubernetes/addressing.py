"""From an HTTP request to what it asks: verb, kind, namespace, name, subresource and options."""

import json
from dataclasses import dataclass
from typing import Any, Final

import yaml
from aiohttp import web

from tests.fakes.kubernetes.errors import bad_request, unknown_path, unsupported_media_type
from tests.fakes.kubernetes.faults import Call
from tests.fakes.kubernetes.kinds import Catalog
from tests.fakes.kubernetes.operations import APPLY, JSON_PATCH, MERGE, STRATEGIC, Address, WriteOptions
from tests.fakes.kubernetes.selection import Predicate, selection

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_BODIES: Final = ("application/json", "application/yaml", JSON_PATCH, MERGE, STRATEGIC, APPLY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    address: Address
    verb: str
    query: dict[str, str]

    @property
    def call(self) -> Call:
        address = self.address
        return Call(
            verb=self.verb,
            plural=address.resource.plural,
            subresource=address.subresource,
            namespace=address.namespace,
            name=address.name,
        )

    @property
    def options(self) -> WriteOptions:
        dry_run = self.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise bad_request(f'Invalid value: "{dry_run}": dryRun must be All')
        return WriteOptions(
            dry_run=bool(dry_run),
            strict=self.query.get("fieldValidation") == "Strict",
            manager=self.query.get("fieldManager") or "unknown",
            force=self.query.get("force") == "true",
        )

    @property
    def matches(self) -> Predicate | None:
        resource = self.address.resource
        selectable = resource.custom.selectable if resource.custom else ()
        labels, fields = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")
        return selection(labels, fields, resource.bucket, selectable)


def _split(path: str) -> tuple[str, str, list[str]]:
    """Group, version and the rest of `/api/v1/...` or `/apis/group/version/...`."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        return "", parts[1], parts[2:]
    if len(parts) >= 4 and parts[0] == "apis":
        return parts[1], parts[2], parts[3:]
    raise unknown_path()


def read_address(catalog: Catalog, path: str) -> Address:
    """404 for kinds and subresources that are not served."""
    group, version, rest = _split(path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and catalog.find(group, version, rest[2]) is not None:
        namespace, rest = rest[1], rest[2:]
    resource = catalog.find(group, version, rest[0])
    if resource is None or len(rest) > 3:
        raise unknown_path()
    name, subresource = [*rest[1:], "", ""][:2]
    if subresource and subresource not in resource.subresources:
        raise unknown_path()
    if bool(namespace) != resource.namespaced and (namespace or name):
        raise unknown_path()
    return Address(resource=resource, namespace=namespace, name=name, subresource=subresource)


def read_request(catalog: Catalog, request: web.BaseRequest) -> Asked:
    address = read_address(catalog, request.path)
    query = dict(request.query)
    if request.method in ("GET", "HEAD"):
        watching = query.get("watch", "false").lower() in ("true", "1")
        verb = "watch" if watching else ("get" if address.name else "list")
    elif request.method == "DELETE":
        verb = "delete" if address.name else "deletecollection"
    else:
        verb = _VERBS.get(request.method, request.method.lower())
    return Asked(address=address, verb=verb, query=query)


async def read_body(request: web.BaseRequest) -> Any:
    """The document in the body, None where there is none."""
    data = await request.read()
    if not data:
        return None
    if request.content_type not in _BODIES and request.content_type != "application/octet-stream":
        raise unsupported_media_type(request.content_type, ["application/json", "application/yaml"])
    try:
        return json.loads(data)
    except ValueError as error:
        if not request.content_type.endswith("yaml"):
            raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error


async def read_object(request: web.BaseRequest) -> dict[str, Any]:
    body = await read_body(request)
    if not isinstance(body, dict):
        raise bad_request(f"the body of the request must be an object, got {type(body).__name__}")
    return body
