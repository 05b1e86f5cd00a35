"""Installs what a region runs, from its Kustomize overlays, and checks that it came up.

The order is the overlays' own: the operator's kinds must be known before anybody makes one.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
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
_WAITED_FOR: Final = {"Deployment": "Available", "CustomResourceDefinition": "Established"}
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
        objects = [name for folder in folders for name in _apply(kubectl, folder, settings)]
    return InstalledRegion(
        region=applied.region,
        by=install_by,
        folders=[str(folder.relative_to(settings.gitops)) for folder in folders],
        objects=objects,
        backend=dict(applied.backend),
    )


def check_region(installed: InstalledRegion, settings: ClusterSettings) -> list[str]:
    """Waits for every definition and every deployment of the overlays, and asks the gateway. Raises NotReady."""
    if installed.by == "nobody":
        return []
    cluster = _cluster(installed.region, installed.backend, settings)
    deadline = time.monotonic() + settings.ready_s
    seen = []
    with reached(cluster, region=installed.region, kubeconfig=settings.kubeconfig) as kubectl:
        for kind, namespace, name in _waited_for(kubectl, installed.region, settings):
            _await(kubectl, kind, namespace, name, deadline)
            seen.append(f"{kind} {name} is {_WAITED_FOR[kind].lower()}")
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
        if kind == "CustomResourceDefinition":
            kubectl.wait("Established", "crd", name, timeout_s=settings.ready_s)
        yield f"{kind.lower()}/{name}"


def _require_argo_cd(kubectl: Kubectl, region: str) -> None:
    known = {item["metadata"]["name"] for item in kubectl.get("crd")}
    if _ARGO_CD not in known:
        expected = f"{_ARGO_CD}: install Argo CD first, or install by kubectl"
        raise InstallFailed(
            f"the cluster of {region} has no Argo CD", got=f"{len(known)} other kinds", expected=expected
        )


def _waited_for(kubectl: Kubectl, region: str, settings: ClusterSettings) -> Iterator[tuple[str, str, str]]:
    for folder in folders_of(region, settings):
        for item in kubectl.build(folder):
            if item["kind"] in _WAITED_FOR:
                yield item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _await(kubectl: Kubectl, kind: str, namespace: str, name: str, deadline: float) -> None:
    condition = _WAITED_FOR[kind]
    left = max(1.0, deadline - time.monotonic())
    try:
        kubectl.wait(condition, kind.lower(), name, namespace=namespace, timeout_s=left)
    except FlightpathError as late:
        raise NotReady(f"{kind} {name} is not ready", got=late.got, expected=f"{condition} in time") from late


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
