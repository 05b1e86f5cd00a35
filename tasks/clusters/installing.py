"""Installs what a region runs, from its Kustomize overlays, and checks that it came up.

The order is the overlays' own: the operator's kinds must be known before anybody makes one.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.terraform import TerraformDriver
from serving.errors import FlightpathError, InvalidInput
from tasks.clusters import environments
from tasks.clusters.errors import InstallFailed, NotReady
from tasks.clusters.kubectl import Kubectl, reached
from tasks.clusters.outcomes import AppliedRegion, InstalledRegion
from tasks.clusters.settings import ClusterSettings
from tasks.progress import announce

PARTS: Final = ("operator", "serving", "observability")
WAYS: Final = ("kubectl", "argocd", "nobody")
_ARGO_CD: Final = "applicationsets.argoproj.io"
_DEFINITION: Final = "CustomResourceDefinition"
_ROLLED_OUT: Final = ("Deployment", "StatefulSet", "DaemonSet")
_ASK_S: Final = 5.0
_POLL_S: Final = 1.0


def require_way(install_by: str) -> None:
    if install_by not in WAYS:
        raise InvalidInput("install_by is wrong", got=repr(install_by), expected=" | ".join(WAYS))


def install_region(applied: AppliedRegion, install_by: str, settings: ClusterSettings) -> InstalledRegion:
    """`argocd`: the cluster runs Argo CD already, which gets the ApplicationSets and applies the rest by itself."""
    require_way(install_by)
    if install_by == "nobody":
        return InstalledRegion(region=applied.region, by=install_by)
    folders = folders_of(applied.region, settings)
    cluster = _cluster(applied.region, applied.backend, settings)
    with reached(cluster, region=applied.region, kubeconfig=settings.kubeconfig) as kubectl:
        if install_by == "argocd":
            _require_argo_cd(kubectl, applied.region)
            folders = [settings.gitops / "argocd"]
        _require_kinds(kubectl, applied.region, folders)
        objects = [name for folder in folders for name in _apply(kubectl, folder, settings)]
    return InstalledRegion(
        region=applied.region,
        by=install_by,
        folders=[str(folder.relative_to(settings.gitops)) for folder in folders],
        objects=objects,
        backend=dict(applied.backend),
    )


def check_region(installed: InstalledRegion, settings: ClusterSettings) -> list[str]:
    """Waits for every definition and every workload of the overlays, and asks the gateway. Raises NotReady."""
    if installed.by == "nobody":
        return []
    cluster = _cluster(installed.region, installed.backend, settings)
    deadline = time.monotonic() + settings.ready_s
    seen = []
    with reached(cluster, region=installed.region, kubeconfig=settings.kubeconfig) as kubectl:
        for item in _objects(kubectl, folders_of(installed.region, settings)):
            if item["kind"] in (_DEFINITION, *_ROLLED_OUT):
                seen.append(_await(kubectl, item, deadline))
    if settings.gateway_url:
        seen.append(_ask_gateway(settings.gateway_url, deadline))
    return seen


def folders_of(region: str, settings: ClusterSettings) -> list[Path]:
    overlay = settings.gitops / "overlays" / region
    found = [overlay / part for part in PARTS if (overlay / part / "kustomization.yaml").is_file()]
    if not found:
        raise InstallFailed(f"nothing is to be installed in {region}", got=f"no {overlay}", expected=" | ".join(PARTS))
    return found


def _cluster(region: str, backend: Mapping[str, str], settings: ClusterSettings) -> Mapping[str, Any]:
    if settings.kubeconfig is not None:
        return {}
    environment = environments.open_environment(region, settings)
    driver: TerraformDriver = environment.driver(backend, settings)
    found = driver.output().get("cluster")
    value = found.value if found is not None else {}
    return value if isinstance(value, Mapping) else {}


def _apply(kubectl: Kubectl, folder: Path, settings: ClusterSettings) -> Iterator[str]:
    objects = kubectl.build(folder)
    kubectl.apply(folder)
    announce("install", f"{folder.name}: {len(objects)} objects")
    for item in objects:
        kind, name = item["kind"], item["metadata"]["name"]
        if kind == _DEFINITION:
            kubectl.established(name, timeout_s=settings.ready_s)
        yield f"{kind.lower()}/{name}"


def _require_argo_cd(kubectl: Kubectl, region: str) -> None:
    known = {item["metadata"]["name"] for item in kubectl.get("crd")}
    if _ARGO_CD not in known:
        expected = f"{_ARGO_CD}: install Argo CD first, or install by kubectl"
        raise InstallFailed(
            f"the cluster of {region} has no Argo CD", got=f"{len(known)} other kinds", expected=expected
        )


def _require_kinds(kubectl: Kubectl, region: str, folders: Sequence[Path]) -> None:
    """Before anything is applied: half of an overlay helps nobody."""
    objects = _objects(kubectl, folders)
    own = {item["spec"]["group"] for item in objects if item["kind"] == _DEFINITION}
    wanted = {item["apiVersion"] for item in objects if item["apiVersion"].partition("/")[0] not in own}
    missing = sorted(wanted - kubectl.api_versions())
    if missing:
        expected = "the projects that bring them installed first (docs/infra.md)"
        raise InstallFailed(f"the cluster of {region} lacks kinds", got=f"no {', '.join(missing)}", expected=expected)


def _objects(kubectl: Kubectl, folders: Sequence[Path]) -> list[dict[str, Any]]:
    return [item for folder in folders for item in kubectl.build(folder)]


def _await(kubectl: Kubectl, item: Mapping[str, Any], deadline: float) -> str:
    kind, name, namespace = item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", "")
    left = max(1.0, deadline - time.monotonic())
    try:
        if kind == _DEFINITION:
            kubectl.established(name, timeout_s=left)
            return f"{kind} {name} is established"
        kubectl.rolled_out(kind.lower(), name, namespace=namespace, timeout_s=left)
        return f"{kind} {namespace}/{name} is rolled out"
    except FlightpathError as late:
        raise NotReady(f"{kind} {name} is not ready", got=late.got, expected="every replica available") from late


def _ask_gateway(url: str, deadline: float) -> str:
    """A load balancer takes minutes until it lets anybody through."""
    address = f"{url.rstrip('/')}/healthz"
    while True:
        problem = _problem(address)
        if not problem:
            return f"{address} answers 200"
        if time.monotonic() >= deadline:
            raise NotReady("the gateway does not answer", got=problem, expected=f"200 from {address}")
        time.sleep(_POLL_S)


def _problem(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=_ASK_S) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except (urllib.error.URLError, OSError) as broken:
        return str(broken)
