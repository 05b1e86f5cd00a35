"""What the operator's benchmark works with: API servers, arms that answer for jobs, and a clock on what they make."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from flightpath_operator.plan import OWNER_LABEL

from tests.bench.operator_peers import PEER
from tests.fakes.kubernetes.client import Client, Refused, connect, path_of
from tests.fakes.operator import CRDS, training_job

Object = dict[str, Any]
JOBS: Final = ("flightpath.dev/v1alpha1", "trainingjobs")
PODS: Final = ("v1", "pods")
_SERVED_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One API server that the figures are taken on."""

    name: str
    kubeconfig: Path


@contextmanager
def test_server(root: Path) -> Iterator[Server]:
    """The test API server in a process of its own."""
    crds = [str(path) for path in sorted(CRDS.glob("*s.yaml"))]
    command = [sys.executable, "-m", "tests.fakes.kubernetes", "--kubeconfig", str(root / "test"), "--crds", *crds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(name="test server", kubeconfig=Path(process.stdout.readline().strip()))
        finally:
            process.terminate()


class PeerProcess:
    """`operator_peers` as a process. Use `start`, `wait_until_ready`, `end`, as with the operator's."""

    def __init__(self, kind: str, kubeconfig: Path, recipe: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "tests.bench.operator_peers", kind]
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "BENCH_RECIPE": str(recipe)}
        self._log = log
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def wait_until_ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"a peer ended: {self._log.read_text()[-2000:]}")

    def end(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)


class World:
    """One namespace of a server, and when its pods and statuses were first seen there. Use `async with world(...)`."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.pods: dict[str, Object] = {}
        """First pod of each job by the job's name."""
        self.pod_at: dict[str, float] = {}
        self.phase_at: dict[tuple[str, str], float] = {}
        """By job and phase."""
        self.watches: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    def path(self, kind: tuple[str, str], name: str = "", subresource: str = "") -> str:
        return path_of(kind[0], kind[1], self.namespace, name, subresource)

    async def watch(self, kind: tuple[str, str], take: Callable[[Object, float], None]) -> None:
        listed = await self.client.request("GET", self.path(kind), limit="1")
        version = listed["metadata"]["resourceVersion"]
        while True:
            async for event in self.client.watch(self.path(kind), version):
                at = time.perf_counter()
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    take(event["object"], at)
                    self._news.set()

    def take_pod(self, pod: Object, at: float) -> None:
        name = (pod["metadata"].get("labels") or {}).get(OWNER_LABEL, "").removeprefix("tj.")
        if name not in self.pod_at:
            self.pod_at[name], self.pods[name] = at, pod

    def take_job(self, job: Object, at: float) -> None:
        phase = (job.get("status") or {}).get("phase", "")
        self.phase_at.setdefault((job["metadata"]["name"], phase), at)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            for task in self.watches:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.pod_at)} jobs have pods in {self.namespace}, more were expected")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1.0)

    async def order(self, name: str, *, peer: bool = False) -> float:
        """Creates a job; returns when that was begun."""
        body = training_job(name)
        body["metadata"]["namespace"] = self.namespace
        kind = JOBS
        if peer:
            body |= {"apiVersion": PEER.api_version, "kind": PEER.kind}
            kind = (PEER.api_version, PEER.plural)
        began = time.perf_counter()
        await self.client.request("POST", self.path(kind), body)
        return began

    async def run_pod(self, name: str) -> float:
        """The job's pod runs, as a kubelet would say; returns when that was begun."""
        pod = self.pods[name]
        container = {"name": pod["spec"]["containers"][0]["name"], "ready": True, "restartCount": 0}
        container |= {"image": "trainer:1", "imageID": "", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        scheduled = {"type": "PodScheduled", "status": "True"}
        status = {"phase": "Running", "conditions": [scheduled], "containerStatuses": [container]}
        began = time.perf_counter()
        await self.client.merge(self.path(PODS, pod["metadata"]["name"], "status"), {"status": status})
        return began

    async def versions(self) -> dict[str, str]:
        """Uid and version of each child."""
        found = {}
        for kind in (PODS, ("v1", "services"), ("v1", "configmaps")):
            for item in (await self.client.request("GET", self.path(kind)))["items"]:
                if OWNER_LABEL in (item["metadata"].get("labels") or {}):
                    found[item["metadata"]["uid"]] = item["metadata"]["resourceVersion"]
        return found

    async def clear(self) -> None:
        """Jobs and children go, whoever has died without taking its finalizer along."""
        for kind in (JOBS, (PEER.api_version, PEER.plural)):
            names = [item["metadata"]["name"] for item in (await self.client.request("GET", self.path(kind)))["items"]]
            await at_most(32, [self._remove(kind, name) for name in names])
        for kind in (PODS, ("v1", "configmaps"), ("v1", "services")):
            items = (await self.client.request("GET", self.path(kind)))["items"]
            names = [i["metadata"]["name"] for i in items if OWNER_LABEL in (i["metadata"].get("labels") or {})]
            await at_most(32, [self._delete(kind, name) for name in names])

    async def _remove(self, kind: tuple[str, str], name: str) -> None:
        with contextlib.suppress(Refused):
            await self.client.merge(self.path(kind, name), {"metadata": {"finalizers": None}})
        await self._delete(kind, name)

    async def _delete(self, kind: tuple[str, str], name: str) -> None:
        with contextlib.suppress(Refused):
            await self.client.request("DELETE", self.path(kind, name), {"gracePeriodSeconds": 0})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.clear()


async def at_most(number: int, work: list[Awaitable[Any]]) -> list[Any]:
    """Results in order; no more than `number` under way at once."""
    permits = asyncio.Semaphore(number)

    async def one(each: Awaitable[Any]) -> Any:
        async with permits:
            return await each

    return list(await asyncio.gather(*map(one, work)))


@asynccontextmanager
async def world(server: Server, prefix: str) -> AsyncIterator[World]:
    namespace = f"{prefix}-{uuid.uuid4().hex[:6]}"
    async with connect(server.kubeconfig) as client:
        await _prepare(client, namespace)
        async with World(client, namespace) as made:
            made.watches = [
                asyncio.create_task(made.watch(PODS, made.take_pod)),
                asyncio.create_task(made.watch(JOBS, made.take_job)),
            ]
            try:
                yield made
            finally:
                for task in made.watches:
                    task.cancel()
                await asyncio.gather(*made.watches, return_exceptions=True)
        with contextlib.suppress(Refused):
            await client.request("DELETE", f"/api/v1/namespaces/{namespace}")


async def _prepare(client: Client, namespace: str) -> None:
    """CRDs, the namespace, and its service account, without which no pod is admitted."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await client.request("POST", "/api/v1/namespaces", body)
    crds = path_of("apiextensions.k8s.io/v1", "customresourcedefinitions")
    if await client.find(f"{crds}/{PEER.plural}.bench.flightpath.dev") is None:
        await client.request("POST", crds, _peer_crd())
    async with asyncio.timeout(_SERVED_S):
        while not await _served(client, namespace):
            await asyncio.sleep(0.1)


async def _served(client: Client, namespace: str) -> bool:
    for kind in (JOBS, (PEER.api_version, PEER.plural)):
        if await client.find(path_of(*kind, namespace)) is None:
            return False
    probe = {"name": "probe", "image": "probe:1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {"containers": [probe]}}
    try:
        await client.request("POST", path_of("v1", "pods", namespace), pod, dryRun="All")
    except Refused:
        return False
    return True


def _peer_crd() -> Object:
    group, version = PEER.api_version.split("/")
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names = {"kind": PEER.kind, "plural": PEER.plural, "singular": PEER.kind.lower(), "listKind": f"{PEER.kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PEER.plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }
