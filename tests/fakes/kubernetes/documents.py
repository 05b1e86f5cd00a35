"""The documents that a server offers about itself: version, discovery, OpenAPI."""

from typing import Any

from tests.fakes.kubernetes import discovery, openapi
from tests.fakes.kubernetes.kinds import Catalog

Object = dict[str, Any]


def about_server(catalog: Catalog, minor: int, path: str) -> Object | None:
    """The document at a path; None where the path leads to objects."""
    match [part for part in path.split("/") if part]:
        case ["version"]:
            return discovery.version(minor)
        case ["api"]:
            return discovery.core_versions()
        case ["apis"]:
            return discovery.group_list(catalog)
        case ["apis", group]:
            return discovery.group(catalog, group)
        case ["api", version]:
            return discovery.resource_list(catalog, "", version)
        case ["apis", group, version]:
            return discovery.resource_list(catalog, group, version)
        case ["openapi", "v3"]:
            return openapi.index(catalog)
        case ["openapi", "v3", "api", version]:
            return openapi.document(catalog, "", version)
        case ["openapi", "v3", "apis", group, version]:
            return openapi.document(catalog, group, version)
    return None
