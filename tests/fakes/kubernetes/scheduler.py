"""The scheduler of the pretend nodes: binds Pods that fit, and says of the others why they wait."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.fakes.kubernetes.client import TRANSIENT, Client, Refused, path_of
from tests.fakes.kubernetes.mirror import Key
from tests.fakes.kubernetes.nodes import (
    NodeShape,
    refusal,
    scheduling_order,
    unschedulable_message,
    waits_for_scheduling,
)
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]
Objects = Mapping[Key, Object]


class Scheduler:
    """`run` until cancelled; `wake` after every change of Pods and nodes."""

    def __init__(self, client: Client, shapes: Mapping[str, NodeShape], pods: Objects, nodes: Objects) -> None:
        self._client = client
        self._shapes = shapes
        self._pods = pods
        self._nodes = nodes
        self._assumed: dict[str, str] = {}
        self._wake = asyncio.Event()
        self.lost: set[str] = set()
        """Nodes that take nothing any more."""

    def wake(self) -> None:
        self._wake.set()

    def forget(self, uid: str) -> None:
        """The Pod is gone."""
        self._assumed.pop(uid, None)
        self.wake()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting = [pod for pod in self._pods.values() if waits_for_scheduling(pod)]
            for pod in sorted(waiting, key=scheduling_order):
                if pod["metadata"]["uid"] not in self._assumed:
                    await self._try(pod)

    async def _try(self, pod: Object) -> None:
        try:
            await self._place(pod)
        except TRANSIENT:
            asyncio.get_running_loop().call_later(0.1, self.wake)

    def _placed(self) -> list[Object]:
        """Pods with their nodes, those that were bound a moment ago included."""
        found = []
        for pod in self._pods.values():
            node = self._assumed.get(pod["metadata"]["uid"])
            found.append({**pod, "spec": {**pod["spec"], "nodeName": node}} if node else pod)
        return found

    async def _place(self, pod: Object) -> None:
        placed, refusals = self._placed(), []
        for name, shape in self._shapes.items():
            node = self._nodes.get(("", name))
            if node is None or name in self.lost:
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
