"""Kubeconfig files: written for the clients of the test server, read for the process kubelet's connection."""

import base64
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


def write_kubeconfig(
    path: Path, url: str, *, token: str | None = None, authority_pem: bytes | None = None, namespace: str = "default"
) -> Path:
    cluster: dict[str, Any] = {"server": url}
    if authority_pem is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority_pem).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    url: str
    token: str | None
    tls: ssl.SSLContext | bool


def _named(items: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    found = next((item for item in items if item["name"] == name), None)
    if found is None:
        raise ValueError(f"kubeconfig must hold the {kind} {name!r}, got {[item['name'] for item in items]}")
    inner: dict[str, Any] = found[kind]
    return inner


def read_kubeconfig(path: Path) -> Connection:
    """The current context's server; only tokens are understood as credentials."""
    document = yaml.safe_load(path.read_text())
    context = _named(document["contexts"], document["current-context"], "context")
    cluster = _named(document["clusters"], context["cluster"], "cluster")
    user = _named(document["users"], context["user"], "user")
    return Connection(url=cluster["server"], token=user.get("token"), tls=_tls(cluster))


def _tls(cluster: dict[str, Any]) -> ssl.SSLContext | bool:
    if cluster.get("insecure-skip-tls-verify"):
        return False
    data = cluster.get("certificate-authority-data")
    if data:
        return ssl.create_default_context(cadata=base64.b64decode(data).decode())
    if file := cluster.get("certificate-authority"):
        return ssl.create_default_context(cafile=file)
    return True
