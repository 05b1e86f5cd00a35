"""The pretend nodes' own word: they register, renew their leases, fall silent and are cordoned."""

import asyncio
from collections.abc import Collection

from tests.fakes.kubernetes.client import TRANSIENT, Client, Refused, path_of
from tests.fakes.kubernetes.nodes import NodeShape, ready_condition
from tests.fakes.kubernetes.timestamps import rfc3339

_LEASES = ("coordination.k8s.io/v1", "leases", "kube-node-lease")


def _node(name: str, subresource: str = "") -> str:
    return path_of("v1", "nodes", name=name, subresource=subresource)


async def register(client: Client, shape: NodeShape) -> None:
    """Creates the node and its lease, or takes over those of an earlier run."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": shape.name},
        "spec": {"holderIdentity": shape.name, "leaseDurationSeconds": 40},
    }
    for path, document in ((path_of("v1", "nodes"), shape.document()), (path_of(*_LEASES), lease)):
        try:
            await client.request("POST", path, document)
        except Refused as error:
            if error.reason != "AlreadyExists":
                raise
    await client.merge(_node(shape.name, "status"), {"status": shape.document()["status"]})


async def renew_leases(client: Client, names: Collection[str], lost: Collection[str]) -> None:
    """For ever: a real control plane evicts the Pods of a silent node."""
    while True:
        for name in names:
            if name not in lost:
                await _renew(client, name)
        await asyncio.sleep(10)


async def _renew(client: Client, name: str) -> None:
    now = rfc3339().replace("Z", ".000000Z")
    try:
        await client.merge(path_of(*_LEASES, name), {"spec": {"renewTime": now}})
    except (Refused, *TRANSIENT):
        return  # the next one comes in time: a lease lasts four of them


async def cordon(client: Client, name: str, *, on: bool) -> None:
    await client.merge(_node(name), {"spec": {"unschedulable": on or None}})


async def tell_lost(client: Client, name: str) -> None:
    """What the node controller writes of a node that it hears no more."""
    await client.merge(_node(name, "status"), {"status": {"conditions": [ready_condition("Unknown")]}})
