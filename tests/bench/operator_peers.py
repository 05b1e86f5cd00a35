"""Two peers of the operator for its benchmark, each a process of its own: `python -m tests.bench.operator_peers KIND`.

`kopf` is an operator as Kopf's documentation writes them: handlers for creation and deletion of an object, with the
finalizer, annotations, status and Events that Kopf makes of them, and all of Kopf's defaults; `kopf-async` is the
same with a handler that is as fast as one can be. `floor` is the least
that any controller could do: a watch, and for each object the writes that the operator was seen to make, with no
cache and no decision. Both make the very objects that the operator makes: BENCH_RECIPE names the file.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import kopf
import kubernetes
from flightpath_operator.plan import OWNER_LABEL
from flightpath_operator.runtime.client import Client, connect
from flightpath_operator.runtime.resources import EVENT, TRAINING_JOB, Resource, resource_of

Object = dict[str, Any]
PEER = Resource("bench.flightpath.dev/v1", "PeerJob", "peerjobs")
"""What the Kopf peer serves: no schema, so that whatever Kopf writes into a status stays there."""
SAMPLE = "sample"
"""Name of the job that the recipe was taken from."""


def children_of(recipe: Object, parent: Object) -> list[Object]:
    """The recipe's Service, ConfigMap and Pod, for another parent."""
    metadata = parent["metadata"]
    name = metadata["name"]
    children: list[Object] = json.loads(json.dumps(recipe["children"]).replace(f'"{SAMPLE}', f'"{name}'))
    for child in children:
        child["metadata"]["namespace"] = metadata["namespace"]
        child["metadata"]["labels"][OWNER_LABEL] = f"tj.{name}"
        (reference,) = child["metadata"]["ownerReferences"]
        reference |= {"apiVersion": parent["apiVersion"], "kind": parent["kind"], "uid": metadata["uid"]}
    return children


class Floor:
    """The writes of one job after the other's event, as many at once as the client allows."""

    def __init__(self, client: Client, recipe: Object) -> None:
        self._client = client
        self._recipe = recipe

    async def run(self) -> None:
        page = await self._client.page(TRAINING_JOB)
        version = page["metadata"]["resourceVersion"]
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            while True:  # a server may end a watch at any time
                watch = self._client.watch(TRAINING_JOB, version=version, selector="", timeout_s=300, silence_s=360)
                async with watch as events:
                    async for event in events:
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] == "ADDED":
                            group.create_task(self._serve(event["object"]))

    async def _serve(self, job: Object) -> None:
        """Service and environment beside the finalizer, a status, the pod, then what is left of statuses."""
        metadata, writes = job["metadata"], self._recipe["writes"]
        children = children_of(self._recipe, job)
        finalizer = self._patch(job, {"metadata": {"finalizers": ["flightpath.dev/operator"]}})
        await asyncio.gather(*(self._create(c) for c in children if c["kind"] != "Pod"), finalizer)
        await self._status(job, 0)
        await asyncio.gather(*(self._create(c) for c in children if c["kind"] == "Pod"))
        for turn in range(1, writes["patch trainingjobs/status"]):
            await self._status(job, turn)
        for turn in range(writes.get("create events", 0)):
            await self._client.create(EVENT, _event(metadata, turn))

    async def _create(self, child: Object) -> None:
        await self._client.create(resource_of(child), child)

    async def _patch(self, job: Object, body: Object, subresource: str = "") -> None:
        metadata = job["metadata"]
        await self._client.patch(TRAINING_JOB, metadata["name"], metadata["namespace"], body, subresource=subresource)

    async def _status(self, job: Object, turn: int) -> None:
        await self._patch(job, {"status": self._recipe["status"] | {"attempt": turn}}, "status")


def _event(metadata: Object, turn: int) -> Object:
    about = {"kind": TRAINING_JOB.kind, "apiVersion": TRAINING_JOB.api_version}
    about |= {key: metadata[key] for key in ("name", "namespace", "uid")}
    name = {"name": f"{metadata['name']}.{turn}", "namespace": metadata["namespace"]}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": name, "involvedObject": about}
    return event | {"reason": "Bench", "message": "as many Events as the operator writes", "type": "Normal"}


def kopf_registry(client: Client, recipe: Object, *, blocking: bool) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    group, version = PEER.api_version.split("/")

    @kopf.on.startup(registry=registry)
    async def tell(**_: Any) -> None:
        print("ready", flush=True)

    def children(body: kopf.Body) -> list[Object]:
        parent = {"apiVersion": PEER.api_version, "kind": PEER.kind, "metadata": dict(body["metadata"])}
        return children_of(recipe, parent)

    def documented(body: kopf.Body, namespace: str, **_: Any) -> Object:
        """As in Kopf's tutorial: a plain function and the official client."""
        service, environment, pod = children(body)
        api = kubernetes.client.CoreV1Api()
        api.create_namespaced_service(namespace, service)
        api.create_namespaced_config_map(namespace, environment)
        made = api.create_namespaced_pod(namespace, pod)
        return {"pod": made.metadata.name}

    async def side_by_side(body: kopf.Body, **_: Any) -> Object:
        """The most that a handler can do: everything at once, through the operator's own client."""
        wanted = children(body)
        await asyncio.gather(*(client.create(resource_of(child), child) for child in wanted))
        return {"pod": wanted[-1]["metadata"]["name"]}

    handler: Any = documented if blocking else side_by_side
    kopf.on.create(group, version, PEER.plural, registry=registry)(handler)

    @kopf.on.delete(group, version, PEER.plural, registry=registry)
    async def part(**_: Any) -> None:
        """What makes Kopf hold the object with its finalizer."""

    return registry


async def _main(kind: str) -> None:
    recipe = json.loads(Path(os.environ["BENCH_RECIPE"]).read_text())
    async with connect() as client:
        if kind == "floor":
            await Floor(client, recipe).run()
        else:
            kubernetes.config.load_kube_config()
            registry = kopf_registry(client, recipe, blocking=kind == "kopf")
            await kopf.operator(registry=registry, clusterwide=True, standalone=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
