"""One small view of a cluster for tests of the operator, so that the same tests run on the test API server and on a
real control plane. On both the operator has its own service account, and rights from its own manifests.

A real one is named by KUBECONFIG_REAL (a user with every right): never KUBECONFIG, which may name one that people use.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.client import Client, Refused, connect, path_of
from tests.fakes.operator import OperatorProcess, install_crds, training_job
from tests.fakes.operator_rbac import ACCOUNT, ADMIN, MANIFESTS, NAMESPACE, authorize

Object = dict[str, Any]
OWN: Final = "flightpath.dev/v1alpha1"
VERSIONS: Final = {
    "trainingjobs": OWN,
    "trainingclusters": OWN,
    "modeldeployments": OWN,
    "deployments": "apps/v1",
    "networkpolicies": "networking.k8s.io/v1",
}
"""Of the kinds that tests look at; all others are of v1."""
NOWHERE: Final = {"flightpath.dev/test": "no-node-has-this"}
"""Keeps kubelets of a cluster that has some away from pods whose status the test writes."""
_POLL_S: Final = 0.03


class Cluster:
    """A namespace of its own, seen by an administrator. Use `async with`-fixtures made by `cluster_of`."""

    def __init__(self, client: Client, namespace: str, admin: Path, account: Path, server: ApiServer | None) -> None:
        self.client = client
        self.namespace = namespace
        self.admin = admin
        """Kubeconfig of the administrator, for kubectl."""
        self.account = account
        """Kubeconfig of the operator's service account."""
        self.server = server
        """The test server, where this is one: for faults."""

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        return path_of(VERSIONS.get(plural, "v1"), plural, self.namespace, name, subresource)

    async def create(self, plural: str, document: Object) -> Object:
        placed = {**document, "metadata": {**document["metadata"], "namespace": self.namespace}}
        return await self.client.request("POST", self.path(plural), placed)

    async def order(self, name: str = "digits", **spec: Any) -> Object:
        """A TrainingJob."""
        return await self.create("trainingjobs", training_job(name, nodeSelector=NOWHERE, **spec))

    async def find(self, plural: str, name: str) -> Object | None:
        return await self.client.find(self.path(plural, name))

    async def objects(self, plural: str, owner: str = "") -> list[Object]:
        query = {"labelSelector": f"flightpath.dev/owner={owner}"} if owner else {}
        items: list[Object] = (await self.client.request("GET", self.path(plural), **query))["items"]
        return items

    async def patch(self, plural: str, name: str, body: Object, subresource: str = "") -> Object:
        return await self.client.merge(self.path(plural, name, subresource), body)

    async def delete(self, plural: str, name: str) -> None:
        await self.client.request("DELETE", self.path(plural, name))

    async def pods(self, name: str = "digits") -> list[Object]:
        return await self.objects("pods", f"tj.{name}")

    async def phase(self, name: str = "digits") -> str:
        return str((await self.status("trainingjobs", name)).get("phase", ""))

    async def status(self, plural: str, name: str) -> Object:
        found = await self.find(plural, name)
        return {} if found is None else found.get("status") or {}

    async def condition(self, plural: str, name: str, type_: str) -> Object:
        conditions = (await self.status(plural, name)).get("conditions") or []
        return next((each for each in conditions if each["type"] == type_), {})

    async def set_pod(self, pod: Object, phase: str, exit_code: int | None = None) -> None:
        """What a kubelet would report."""
        state: Object = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        if exit_code is not None:
            ended = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z"}
            state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"} | ended}
        container = {"name": pod["spec"]["containers"][0]["name"], "ready": exit_code is None, "state": state}
        container |= {"restartCount": 0, "image": "trainer:1", "imageID": ""}
        scheduled = {"type": "PodScheduled", "status": "True"}
        status = {"phase": phase, "conditions": [scheduled], "containerStatuses": [container]}
        await self.patch("pods", pod["metadata"]["name"], {"status": status}, "status")

    def operator(self, log: Path, **settings: str) -> OperatorProcess:
        return OperatorProcess(self.account, log, namespace=NAMESPACE, **settings)

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """As the administrator; blocks, so call it in a thread where the test server runs in this loop."""
        return run_kubectl(self.admin, "--namespace", self.namespace, *arguments, stdin=stdin)


async def until(
    condition: Callable[[], Awaitable[Any]], operator: OperatorProcess | None = None, timeout_s: float = 90.0
) -> Any:
    """What the condition gives once it is true."""
    try:
        async with asyncio.timeout(timeout_s):
            while not (found := await condition()):
                await asyncio.sleep(_POLL_S)
    except TimeoutError as late:
        raise AssertionError("" if operator is None else operator.log[-4000:]) from late
    return found


def run_kubectl(kubeconfig: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    # A cache of its own: what one server serves says nothing about another on the same port.
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "--cache-dir", str(kubeconfig.parent / "kubectl-cache")]
    return subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False)


@asynccontextmanager
async def cluster_of(kind: str, folder: Path) -> AsyncIterator[Cluster]:
    """`test server`, or `real`: skipped where KUBECONFIG_REAL names none."""
    if kind == "test server":
        async with _test_server(folder) as made:
            yield made
        return
    real = os.environ.get("KUBECONFIG_REAL")
    if not real:
        pytest.skip("KUBECONFIG_REAL names no control plane")
    async with _real(Path(real), folder) as made:
        yield made


@asynccontextmanager
async def _test_server(folder: Path) -> AsyncIterator[Cluster]:
    tokens = {"admin-token": ADMIN, "operator-token": ACCOUNT}
    async with ApiServer(tokens=tokens, tls=True, authorize=authorize) as server:
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        install_crds(server)
        admin = server.kubeconfig(folder / "admin")
        account = server.kubeconfig(folder / "account", token="operator-token")
        async with connect(admin) as client:
            yield Cluster(client, "default", admin, account, server)


@asynccontextmanager
async def _real(admin: Path, folder: Path) -> AsyncIterator[Cluster]:
    _install(admin)
    namespace = f"operator-test-{uuid.uuid4().hex[:8]}"
    async with connect(admin) as client:
        account = await _account(client, admin, folder / "account")
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await client.request("POST", "/api/v1/namespaces", body)
        made = Cluster(client, namespace, admin, account, None)
        await until(lambda: _admits_pods(made))
        try:
            yield made
        finally:
            await _free(made)
            await client.request("DELETE", f"/api/v1/namespaces/{namespace}")


@cache
def _install(admin: Path) -> None:
    """CRDs, namespace, account and roles as they are shipped; the operator itself runs here, from source."""
    built = run_kubectl(admin, "kustomize", str(MANIFESTS / "default"))
    assert built.returncode == 0, built.stderr
    kept = [each for each in yaml.safe_load_all(built.stdout) if each["kind"] != "Deployment"]
    # Old servers do not know rules in CRDs, and kubectl would not send what their schema lacks.
    done = run_kubectl(admin, "apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump_all(kept))
    assert done.returncode == 0, done.stderr
    waited = run_kubectl(admin, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    assert waited.returncode == 0, waited.stderr


async def _account(client: Client, admin: Path, path: Path) -> Path:
    """A kubeconfig for the operator's service account, with a token that the server issues for an hour."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    where = path_of("v1", "serviceaccounts", NAMESPACE, ACCOUNT, "token")
    token = (await client.request("POST", where, asked))["status"]["token"]
    document = yaml.safe_load(admin.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


async def _admits_pods(cluster: Cluster) -> bool:
    """A new namespace has no service account for some moments, and no pod is let in without."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}}
    pod |= {"spec": {"containers": [{"name": "probe", "image": "probe:1"}]}}
    try:
        await cluster.client.request("POST", cluster.path("pods"), pod, dryRun="All")
    except Refused:
        return False
    return True


async def _free(cluster: Cluster) -> None:
    """Without an operator nobody takes its finalizers away."""
    for plural, version in VERSIONS.items():
        for found in await cluster.objects(plural) if version == OWN else ():
            with contextlib.suppress(Refused):
                await cluster.patch(plural, found["metadata"]["name"], {"metadata": {"finalizers": None}})
