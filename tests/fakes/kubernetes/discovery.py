"""Discovery: which groups, versions and kinds are served."""

from typing import Any, Final

from tests.fakes.kubernetes.errors import unknown_path
from tests.fakes.kubernetes.kinds import Catalog, Resource

Object = dict[str, Any]

_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCE_KINDS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "scale": ("autoscaling/v1", "Scale", ("get", "patch", "update")),
    "binding": ("v1", "Binding", ("create",)),
    "eviction": ("policy/v1", "Eviction", ("create",)),
    "finalize": ("v1", "Namespace", ("update",)),
    "log": ("v1", "Pod", ("get",)),
}


def version(minor: int) -> Object:
    return {
        "major": "1",
        "minor": str(minor),
        "gitVersion": f"v1.{minor}.0",
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def core_versions() -> Object:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group_list(catalog: Catalog) -> Object:
    groups = [_group(name, versions) for name, versions in catalog.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(catalog: Catalog, name: str) -> Object:
    versions = catalog.groups().get(name)
    if not versions or not name:
        raise unknown_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def _described(resource: Resource) -> list[Object]:
    main: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(_VERBS),
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    if resource.categories:
        main["categories"] = list(resource.categories)
    return [main, *(_subresource(resource, each) for each in sorted(resource.subresources))]


def _subresource(resource: Resource, name: str) -> Object:
    base = {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}
    if name not in _SUBRESOURCE_KINDS:
        return {**base, "kind": resource.kind, "verbs": ["get", "patch", "update"]}
    api_version, kind, verbs = _SUBRESOURCE_KINDS[name]
    group_name, _, version_name = api_version.rpartition("/")
    return {**base, "group": group_name, "version": version_name, "kind": kind, "verbs": list(verbs)}


def resource_list(catalog: Catalog, group_name: str, version_name: str) -> Object:
    found = [each for each in catalog if (each.group, each.version) == (group_name, version_name)]
    if not found:
        raise unknown_path()
    listed = [described for each in found for described in _described(each)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": found[0].api_version, "resources": listed}
