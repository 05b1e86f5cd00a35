"""The environment of a container as the kubelet makes it: env, envFrom, valueFrom and `$(NAME)`."""

import re
from typing import Any, Final

from tests.fakes.kubernetes.client import Client
from tests.fakes.kubernetes.container_files import NotConfigured, read_config
from tests.fakes.kubernetes.local_network import LOOPBACK

Object = dict[str, Any]

_REFERENCE: Final = re.compile(r"\$(?:\$|\((?P<name>[-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_KEYED: Final = re.compile(r"^metadata\.(?P<map>labels|annotations)\['(?P<key>[^']+)'\]$")


def expand(text: str, environment: dict[str, str]) -> str:
    """`$(NAME)` by its value, `$$` by `$`; unknown names stay."""

    def value(found: "re.Match[str]") -> str:
        if found["name"] is None:
            return "$"
        return environment.get(found["name"], found[0])

    return _REFERENCE.sub(value, text)


def field_value(pod: Object, path: str) -> str:
    """What a fieldRef says of a Pod on this machine."""
    metadata, spec = pod["metadata"], pod["spec"]
    if keyed := _KEYED.match(path):
        return str((metadata.get(keyed["map"]) or {}).get(keyed["key"], ""))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": LOOPBACK,
        "status.podIPs": LOOPBACK,
        "status.hostIP": LOOPBACK,
    }
    if path not in known:
        raise NotConfigured(f"fieldRef must be one of {sorted(known)}, got {path}")
    return str(known[path])


async def resolve_environment(client: Client, pod: Object, container: Object) -> dict[str, str]:
    """In the container's order, later over earlier; `NotConfigured` names what is missing."""
    environment: dict[str, str] = {}
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        for plural, key in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
            if reference := source.get(key):
                optional = bool(reference.get("optional"))
                data = await read_config(client, namespace, plural, reference["name"], optional=optional)
                environment |= {source.get("prefix", "") + name: value for name, value in data.items()}
    for variable in container.get("env") or []:
        value = await _value(client, pod, container, variable)
        if value is not None:
            environment[variable["name"]] = expand(value, environment)
    return environment


async def _value(client: Client, pod: Object, container: Object, variable: Object) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return str(variable.get("value", ""))
    if field := source.get("fieldRef"):
        return field_value(pod, field["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        part, _, resource = reference["resource"].partition(".")
        return str(((container.get("resources") or {}).get(part) or {}).get(resource, "0"))
    for plural, key in (("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")):
        if reference := source.get(key):
            optional = bool(reference.get("optional"))
            namespace = pod["metadata"]["namespace"]
            data = await read_config(client, namespace, plural, reference["name"], optional=optional)
            if reference["key"] in data or optional:
                return data.get(reference["key"])
            raise NotConfigured(
                f"couldn't find key {reference['key']} in {plural.removesuffix('s')} {reference['name']}"
            )
    raise NotConfigured(f"valueFrom of {variable['name']} must name a source that is known, got {sorted(source)}")
