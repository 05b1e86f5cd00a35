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

from tests.fakes.kubernetes import node_agent
from tests.fakes.kubernetes.client import Client, connect, path_of
from tests.fakes.kubernetes.container_launch import Machine
from tests.fakes.kubernetes.containers import send
from tests.fakes.kubernetes.images import Image, Registry
from tests.fakes.kubernetes.local_network import LOOPBACK, LocalNetwork
from tests.fakes.kubernetes.mirror import Mirror, key_of
from tests.fakes.kubernetes.nodes import NodeShape
from tests.fakes.kubernetes.pod_run import PodRun
from tests.fakes.kubernetes.scheduler import Scheduler

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

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="kubelet-", ignore_cleanup_errors=True)
            root = Path(stack.enter_context(folder))
            self._client: Client = await stack.enter_async_context(connect(self._kubeconfig))
            await self._start(stack, root)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack, root: Path) -> None:
        client = self._client
        self._services = Mirror(client, path_of("v1", "services"))
        self._nodes = Mirror(client, path_of("v1", "nodes"), lambda change, node: self._scheduler.wake())
        self._pods = Mirror(client, path_of("v1", "pods"), self._observe)
        self._scheduler = Scheduler(client, self._shapes, self._pods.objects, self._nodes.objects)
        self.network = LocalNetwork(lambda: self._services.objects, lambda: self._pods.objects, {})
        self._machine = Machine(
            client=client, network=self.network, images=self._images, root=root, time_scale=self._time_scale
        )
        for shape in self._shapes.values():
            await node_agent.register(client, shape)
        tasks: list[asyncio.Task[None]] = []
        stack.push_async_callback(self._end, tasks)
        tasks.append(asyncio.create_task(node_agent.renew_leases(client, self._shapes.keys(), self._scheduler.lost)))
        for mirror in (self._services, self._nodes, self._pods):
            tasks.append(asyncio.create_task(mirror.run()))
            await mirror.synced.wait()
        tasks.append(asyncio.create_task(self._scheduler.run()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _end(self, tasks: "list[asyncio.Task[None]]") -> None:
        running = [task for _, task in self._runs.values()]
        for task in [*tasks, *running]:
            task.cancel()
        await asyncio.gather(*tasks, *running, return_exceptions=True)

    def _observe(self, change: str, pod: Object) -> None:
        self._scheduler.wake()
        uid = pod["metadata"]["uid"]
        running = self._runs.get(uid)
        if change == "gone":
            self._scheduler.forget(uid)
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
        if node not in self._shapes or node in self._scheduler.lost or over:
            return
        uid = pod["metadata"]["uid"]
        run = PodRun(self._machine, pod)
        run.update(pod)
        task = asyncio.create_task(run.run())
        self._runs[uid] = (run, task)
        self._last[pod["metadata"]["namespace"], pod["metadata"]["name"]] = run
        task.add_done_callback(lambda done: self._settle(uid, done))

    def _settle(self, uid: str, task: "asyncio.Task[None]") -> None:
        run, _ = self._runs.pop(uid)
        left = self._pods.objects.get(key_of(run.pod))
        if left is not None and left["metadata"]["uid"] == uid:
            self._over.add(uid)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": f"pod {uid} broke", "exception": error})

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
        await node_agent.cordon(self._client, node, on=on)

    async def lose_node(self, node: str) -> None:
        """The node falls silent: its processes are gone, its Pods stay as they were last told."""
        self._scheduler.lost.add(node)
        lost = [task for run, task in self._runs.values() if run.pod["spec"].get("nodeName") == node]
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        await node_agent.tell_lost(self._client, node)

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
