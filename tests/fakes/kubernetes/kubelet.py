"""A kubelet and scheduler whose containers are processes of this machine, on any API server that a kubeconfig names.

What differs from a real node: no isolation (users, cgroups, file systems, resource limits, securityContext), one
address for all Pods (`local_network.py` tells how names and ports are rewritten), images are a table (`images.py`),
mount paths are rewritten in arguments and environment (`container_files.py`).
"""

import asyncio
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fakes.kubernetes.client import TRANSIENT, Client, Refused, connect, path_of
from tests.fakes.kubernetes.containers import send
from tests.fakes.kubernetes.images import Image, Registry
from tests.fakes.kubernetes.local_network import LOOPBACK, LocalNetwork
from tests.fakes.kubernetes.mirror import Mirror
from tests.fakes.kubernetes.nodes import (
    NodeShape,
    ready_condition,
    refusal,
    scheduling_order,
    unschedulable_message,
    waits_for_scheduling,
)
from tests.fakes.kubernetes.pod_run import Machine, PodRun
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]


class ProcessKubelet:
    """`async with ProcessKubelet(kubeconfig, images) as kubelet:` runs the Pods of every namespace."""

    def __init__(
        self,
        kubeconfig: Path,
        images: Mapping[str, Image],
        *,
        nodes: Sequence[NodeShape] = (NodeShape(),),
        time_scale: float = 1.0,
    ) -> None:
        """`time_scale` shortens probe periods and back-offs (0.1: ten times as fast), never grace periods."""
        self._kubeconfig = kubeconfig
        self._images = Registry(images)
        self._shapes = {shape.name: shape for shape in nodes}
        self._time_scale = time_scale
        self._stack = AsyncExitStack()
        self._runs: dict[str, tuple[PodRun, asyncio.Task[None]]] = {}
        self._last: dict[tuple[str, str], PodRun] = {}
        self._over: set[str] = set()
        self._assumed: dict[str, str] = {}
        self._lost: set[str] = set()
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        root = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kubelet-", ignore_cleanup_errors=True))
        )
        self._client: Client = await self._stack.enter_async_context(connect(self._kubeconfig))
        self._pods = Mirror(self._client, path_of("v1", "pods"), self._observe)
        self._services = Mirror(self._client, path_of("v1", "services"))
        self._nodes = Mirror(self._client, path_of("v1", "nodes"), lambda change, node: self._wake.set())
        self.network = LocalNetwork(lambda: self._services.objects, lambda: self._pods.objects, {})
        self._machine = Machine(
            client=self._client, network=self.network, images=self._images, root=root, time_scale=self._time_scale
        )
        for shape in self._shapes.values():
            await self._register(shape)
        loops = [self._services.run(), self._nodes.run(), self._pods.run(), self._schedule(), self._beat()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        self._stack.push_async_callback(self._end, tasks)
        for mirror in (self._services, self._nodes, self._pods):
            await mirror.synced.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _end(self, tasks: "list[asyncio.Task[None]]") -> None:
        running = [task for _, task in self._runs.values()]
        for task in [*tasks, *running]:
            task.cancel()
        await asyncio.gather(*tasks, *running, return_exceptions=True)

    async def _register(self, shape: NodeShape) -> None:
        path = path_of("v1", "nodes", name=shape.name)
        try:
            await self._client.request("POST", path_of("v1", "nodes"), shape.document())
        except Refused as error:
            if error.reason != "AlreadyExists":
                raise
        await self._client.merge(f"{path}/status", {"status": shape.document()["status"]})
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": shape.name},
            "spec": {"holderIdentity": shape.name, "leaseDurationSeconds": 40},
        }
        try:
            await self._client.request("POST", path_of("coordination.k8s.io/v1", "leases", "kube-node-lease"), lease)
        except Refused as error:
            if error.status not in (404, 409):
                raise

    async def _beat(self) -> None:
        """Renews the nodes' leases: a real control plane evicts the Pods of a silent node."""
        while True:
            for name in self._shapes.keys() - self._lost:
                path = path_of("coordination.k8s.io/v1", "leases", "kube-node-lease", name)
                now = rfc3339().replace("Z", ".000000Z")
                try:
                    await self._client.merge(path, {"spec": {"renewTime": now}})
                except (Refused, *TRANSIENT):
                    continue
            await asyncio.sleep(10)

    def _observe(self, change: str, pod: Object) -> None:
        self._wake.set()
        uid = pod["metadata"]["uid"]
        running = self._runs.get(uid)
        if change == "gone":
            self._assumed.pop(uid, None)
            self._over.discard(uid)
            if running is not None:
                running[1].cancel()
        elif running is not None:
            running[0].update(pod)
        elif uid not in self._over:
            self._begin(pod)

    def _begin(self, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if node not in self._shapes or node in self._lost or over:
            return
        uid = pod["metadata"]["uid"]
        run = PodRun(self._machine, pod)
        run.update(pod)
        task = asyncio.create_task(run.run())
        self._runs[uid] = (run, task)
        self._last[pod["metadata"]["namespace"], pod["metadata"]["name"]] = run
        task.add_done_callback(lambda done: self._settle(uid, done))

    def _settle(self, uid: str, task: "asyncio.Task[None]") -> None:
        self._runs.pop(uid, None)
        self._over.add(uid)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": f"pod {uid} broke", "exception": error})

    async def _schedule(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting = [pod for pod in self._pods.objects.values() if waits_for_scheduling(pod)]
            for pod in sorted(waiting, key=scheduling_order):
                if pod["metadata"]["uid"] not in self._assumed:
                    try:
                        await self._place(pod)
                    except TRANSIENT:
                        self._wake.set()

    def _placed(self) -> list[Object]:
        """Pods with their nodes, those that were bound a moment ago included."""
        found = []
        for pod in self._pods.objects.values():
            node = self._assumed.get(pod["metadata"]["uid"])
            found.append({**pod, "spec": {**pod["spec"], "nodeName": node}} if node else pod)
        return found

    async def _place(self, pod: Object) -> None:
        placed, refusals = self._placed(), []
        for name, shape in self._shapes.items():
            node = self._nodes.objects.get(("", name))
            if node is None or name in self._lost:
                refusals.append("node(s) were not ready")
                continue
            why = refusal(pod, shape, node, placed)
            if why is None:
                await self._bind(pod, name)
                return
            refusals.append(why)
        await self._refuse(pod, unschedulable_message(refusals))

    async def _bind(self, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = path_of("v1", "pods", metadata["namespace"], metadata["name"], "binding")
        try:
            await self._client.request("POST", path, binding)
            self._assumed[metadata["uid"]] = node
        except Refused:
            return  # gone or bound by another: the watch will tell

    async def _refuse(self, pod: Object, message: str) -> None:
        metadata, status = pod["metadata"], pod.get("status") or {}
        conditions = status.get("conditions") or []
        if any(each["type"] == "PodScheduled" and each.get("message") == message for each in conditions):
            return
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": rfc3339(),
        }
        others = [each for each in conditions if each["type"] != "PodScheduled"]
        path = path_of("v1", "pods", metadata["namespace"], metadata["name"], "status")
        body = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [*others, scheduled]}}
        try:
            await self._client.merge(path, body)
        except Refused:
            return  # gone: the watch will tell

    # what tests order

    def _run_of(self, pod: str, namespace: str) -> PodRun:
        for run, _ in self._runs.values():
            metadata = run.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                return run
        raise LookupError(f"pod must be one that runs here, got {namespace}/{pod}")

    def kill(
        self, pod: str, number: int = signal.SIGKILL, *, namespace: str = "default", container: str | None = None
    ) -> None:
        """Signals a Pod's processes, as a crash does."""
        for process in self._run_of(pod, namespace).processes(container):
            send(process, number)

    def kill_for_memory(self, pod: str, *, namespace: str = "default") -> None:
        """SIGKILL told as OOMKilled."""
        run = self._run_of(pod, namespace)
        for state in run.mains:
            state.reason = "OOMKilled"
        self.kill(pod, namespace=namespace)

    async def evict(self, pod: str, *, namespace: str = "default", reason: str = "Evicted") -> None:
        await self._run_of(pod, namespace).evict(reason, "The node was low on resource: memory.")

    def fail_image(self, name: str) -> None:
        """Pulls of the image fail from now on: ErrImagePull, ImagePullBackOff."""
        self._images.fail(name)

    def mend_image(self, name: str) -> None:
        self._images.mend(name)

    async def cordon(self, node: str, *, on: bool = True) -> None:
        await self._client.merge(path_of("v1", "nodes", name=node), {"spec": {"unschedulable": on or None}})

    async def lose_node(self, node: str) -> None:
        """The node falls silent: its processes are gone, its Pods stay as they were last told."""
        self._lost.add(node)
        lost = [task for run, task in self._runs.values() if run.pod["spec"].get("nodeName") == node]
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        body = {"status": {"conditions": [ready_condition("Unknown")]}}
        await self._client.merge(path_of("v1", "nodes", name=node, subresource="status"), body)

    def log(self, pod: str, *, namespace: str = "default", container: str | None = None) -> str:
        """What a container wrote so far, over all its restarts; the first container by default.

        Logs outlive their Pods until the kubelet ends."""
        run = self._last[namespace, pod]
        path = run.log_path(container or run.mains[0].name)
        return path.read_text(errors="replace") if path.exists() else ""

    def local_port(self, pod: str, port: int | str, *, namespace: str = "default") -> int:
        """Where a Pod's port really listens."""
        return self.network.port_of(self._pods.objects[namespace, pod], port)

    def endpoints(self, service: str, *, namespace: str = "default", port: int | None = None) -> list[tuple[str, int]]:
        """(host, port) of the ready Pods of a Service, for its first port unless one is named."""
        found = self._services.objects.get((namespace, service))
        if found is None:
            return []
        chosen = port if port is not None else found["spec"]["ports"][0]["port"]
        addresses = []
        for pod in self.network.selected(found):
            conditions = (pod.get("status") or {}).get("conditions") or []
            ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
            if ready and "deletionTimestamp" not in pod["metadata"]:
                addresses.append((LOOPBACK, self.network.port_of(pod, self.network.target_port(found, chosen, pod))))
        return addresses
