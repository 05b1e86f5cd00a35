"""Finds out what the cluster can do: its version, the kinds it serves, the add-ons that are installed."""

from dataclasses import dataclass
from typing import Final

from flightpath_operator.capabilities import Capabilities
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import NotFound
from flightpath_operator.runtime.resources import CHILDREN, PARENTS, Resource

_ADD_ONS: Final = {
    "kueue": "kueue.x-k8s.io",
    "pod_group": "scheduling.x-k8s.io",
    "kuberay": "ray.io",
    "kserve": "serving.kserve.io",
    "keda": "keda.sh",
}
_TWINS: Final = {
    "policy/v1beta1": "policy/v1",
    "autoscaling/v2beta2": "autoscaling/v2",
}
"""Old versions of a kind that are used only where the new one is absent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovered:
    capabilities: Capabilities
    children: tuple[Resource, ...]
    """Child kinds that the server has, in the version that the operator writes."""
    missing: tuple[str, ...]
    """The operator's own kinds that the server does not have: their CRDs are not installed."""


async def discover(client: Client) -> Discovered:
    """One look at /version, /apis and the groups that matter."""
    version = await client.read("/version")
    groups = {group["name"] for group in (await client.read("/apis"))["groups"]}
    served = {api: await _kinds(client, api) for api in {r.api_version for r in (*CHILDREN, *PARENTS)}}
    capabilities = Capabilities(
        minor=int("".join(c for c in str(version["minor"]) if c.isdigit()) or 0),
        **{field: group in groups for field, group in _ADD_ONS.items()},
    )
    return Discovered(
        capabilities=capabilities,
        children=tuple(resource for resource in CHILDREN if _is_used(resource, served)),
        missing=tuple(resource.plural for resource in PARENTS if resource.plural not in served[resource.api_version]),
    )


def _is_used(resource: Resource, served: dict[str, set[str]]) -> bool:
    newer = _TWINS.get(resource.api_version)
    if newer is not None and resource.plural in served[newer]:
        return False
    return resource.plural in served[resource.api_version]


async def _kinds(client: Client, api_version: str) -> set[str]:
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    try:
        return {entry["name"] for entry in (await client.read(root))["resources"]}
    except NotFound:
        return set()
