"""The cluster as a controller of built-in workloads sees it, and the writes that all of them make."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.kubernetes.client import Client, Refused, path_of
from tests.fakes.kubernetes.mirror import Key, Mirror
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]


def controller_of(document: Object) -> str:
    """The uid of an object's controller."""
    references = document["metadata"].get("ownerReferences") or []
    return next((each["uid"] for each in references if each.get("controller")), "")


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def owned_child(owner: Object, name: str, spec: Object, labels: Object, annotations: Object | None = None) -> Object:
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations or {},
            "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": spec,
    }


def free_names(prefix: str, taken: list[Object]) -> Iterator[str]:
    """prefix-0, prefix-1, ... without those of present objects."""
    names = {each["metadata"]["name"] for each in taken}
    return (name for name in (f"{prefix}-{index}" for index in itertools.count()) if name not in names)


def condition(kind: str, holds: bool, reason: str, before: list[Object]) -> Object:
    status = "True" if holds else "False"
    wanted = {"type": kind, "status": status, "reason": reason if holds else "MinimumReplicasUnavailable"}
    known = next((each for each in before if each["type"] == kind), None)
    if known is not None and all(known.get(name) == value for name, value in wanted.items()):
        return known
    now = rfc3339()
    since = known["lastTransitionTime"] if known and known["status"] == status else now
    return {**wanted, "lastTransitionTime": since, "lastUpdateTime": now, "message": reason}


@dataclass(slots=True)
class Workloads:
    """The cluster as the controllers see it, and what they do to it."""

    client: Client
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    mirrors: dict[str, Mirror] = field(default_factory=dict)
    expected: dict[Key, float] = field(default_factory=dict)
    """Objects that were created a moment ago and that no watch has shown yet."""

    def follow(self, api_version: str, plural: str) -> Mirror:
        mirror = Mirror(self.client, path_of(api_version, plural), self._observe)
        self.mirrors[plural] = mirror
        return mirror

    def _observe(self, change: str, document: Object) -> None:
        metadata = document["metadata"]
        self.expected.pop((metadata.get("namespace", ""), metadata["name"]), None)
        self.wake.set()

    def all(self, plural: str, api_version: str, kind: str) -> list[Object]:
        """Lists of built-in kinds come without their kind: it is put back."""
        found = self.mirrors[plural].objects.values()
        return [{**each, "apiVersion": api_version, "kind": kind} for each in found]

    def children(self, plural: str, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [each for each in self.mirrors[plural].objects.values() if controller_of(each) == uid]

    async def create(self, api_version: str, plural: str, document: Object) -> None:
        metadata = document["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if key in self.expected:
            return
        self.expected[key] = asyncio.get_running_loop().time()
        try:
            await self.client.request("POST", path_of(api_version, plural, metadata["namespace"]), document)
        except Refused as error:
            self.expected.pop(key, None)
            if error.reason != "AlreadyExists":
                raise

    async def delete(self, api_version: str, plural: str, document: Object) -> None:
        metadata = document["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        await self.client.request("DELETE", path_of(api_version, plural, metadata["namespace"], metadata["name"]), body)

    async def write(self, document: Object, plural: str, body: Object, subresource: str = "") -> None:
        """A merge patch, unless nothing would change."""
        if all(document.get(name) == value for name, value in body.items()):
            return
        metadata = document["metadata"]
        path = path_of(document["apiVersion"], plural, metadata["namespace"], metadata["name"], subresource)
        await self.client.merge(path, body)
