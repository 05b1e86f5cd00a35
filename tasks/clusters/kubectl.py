"""kubectl against one cluster: the kubeconfig comes from a file, or is made of Terraform's outputs.

A kubeconfig that is made holds no credential: the cloud's own log-in program is asked for one at each call.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.driver.errors import MissingBinary
from tasks.clusters.errors import InstallFailed

_FIELD_MANAGER: Final = "flightpath-clusters"
_CALL_S: Final = 300.0
_AKS_SERVER: Final = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""Azure's own name for the API servers of every AKS cluster: AKS documentation, "kubelogin"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kubectl:
    kubeconfig: Path

    def build(self, folder: Path) -> list[dict[str, Any]]:
        """Objects of a Kustomize folder; asks no cluster."""
        text = _run("kustomize", str(folder), kubeconfig=self.kubeconfig)
        return [document for document in yaml.safe_load_all(text) if document]

    def apply(self, folder: Path) -> None:
        """On the server, under a name of its own, so that what others own stays theirs."""
        words = ("apply", "--server-side", f"--field-manager={_FIELD_MANAGER}", "-k", str(folder))
        _run(*words, kubeconfig=self.kubeconfig)

    def established(self, definition: str, *, timeout_s: float) -> None:
        """Waits until objects of a CustomResourceDefinition can be made."""
        words = ("wait", "--for=condition=Established", f"crd/{definition}", f"--timeout={max(1, round(timeout_s))}s")
        _run(*words, kubeconfig=self.kubeconfig, timeout_s=timeout_s + 30)

    def rolled_out(self, kind: str, name: str, *, namespace: str, timeout_s: float) -> None:
        """Waits until every replica is of this version and available."""
        where = (f"--namespace={namespace}",) if namespace else ()
        words = ("rollout", "status", f"{kind}/{name}", f"--timeout={max(1, round(timeout_s))}s")
        _run(*words, *where, kubeconfig=self.kubeconfig, timeout_s=timeout_s + 30)

    def api_versions(self) -> set[str]:
        """`apps/v1`, `v1`: what the cluster knows."""
        return set(_run("api-versions", kubeconfig=self.kubeconfig).split())

    def get(self, kind: str) -> list[dict[str, Any]]:
        found = json.loads(_run("get", kind, "--output=json", kubeconfig=self.kubeconfig))
        items: list[dict[str, Any]] = found["items"]
        return items


@contextmanager
def reached(cluster: Mapping[str, Any], *, region: str, kubeconfig: Path | None) -> Iterator[Kubectl]:
    """`cluster`: the output of that name of an environment (name, endpoint, ca_certificate)."""
    if kubeconfig is not None:
        yield Kubectl(kubeconfig=kubeconfig)
        return
    if missing := sorted({"name", "endpoint", "ca_certificate"} - cluster.keys()):
        expected = "an output `cluster` with name, endpoint and ca_certificate, or FLIGHTPATH_INFRA_KUBECONFIG"
        raise InstallFailed(f"the cluster of {region} cannot be reached", got=f"no {missing}", expected=expected)
    with tempfile.TemporaryDirectory(prefix="flightpath-") as folder:
        path = Path(folder, "kubeconfig")
        path.write_text(yaml.safe_dump(kubeconfig_of(cluster, region)))
        yield Kubectl(kubeconfig=path)


def kubeconfig_of(cluster: Mapping[str, Any], region: str) -> dict[str, Any]:
    name, endpoint = str(cluster["name"]), str(cluster["endpoint"])
    server = endpoint if endpoint.startswith("https://") else f"https://{endpoint}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": cluster["ca_certificate"]}}
        ],
        "users": [{"name": name, "user": {"exec": _log_in(name, region)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def _log_in(name: str, region: str) -> dict[str, Any]:
    """The environment's name begins with its cloud; those of AWS, the first one, do not."""
    cloud = region.partition("-")[0]
    words = {
        "gcp": ["gke-gcloud-auth-plugin"],
        "azure": ["kubelogin", "get-token", "--login", "azurecli", "--server-id", _AKS_SERVER],
    }.get(cloud, ["aws", "eks", "get-token", "--cluster-name", name, "--output", "json"])
    version = "client.authentication.k8s.io/v1beta1"
    return {"apiVersion": version, "command": words[0], "args": words[1:], "interactiveMode": "Never"}


def _run(*words: str, kubeconfig: Path, timeout_s: float = _CALL_S) -> str:
    binary = shutil.which("kubectl")
    if binary is None:
        raise MissingBinary("kubectl was not found", got="none on the PATH", expected="kubectl 1.30 or newer")
    try:
        done = subprocess.run(
            [binary, f"--kubeconfig={kubeconfig}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise InstallFailed(f"kubectl {words[0]} did not end", got=f"{timeout_s:g} s", expected="an end") from late
    if done.returncode != 0:
        told = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise InstallFailed(f"kubectl {' '.join(words[:3])} failed", got=told[-1], expected="exit status 0")
    return done.stdout
