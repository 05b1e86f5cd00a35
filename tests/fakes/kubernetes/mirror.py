"""A live copy of one kind's objects: list, then watch, and list anew when the watch cannot continue."""

import asyncio
from collections.abc import Callable
from typing import Literal

from tests.fakes.kubernetes.client import TRANSIENT, Client, Object, Refused

Key = tuple[str, str]
Observer = Callable[[Literal["changed", "gone"], Object], None]


def key_of(document: Object) -> Key:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Mirror:
    """`run` until cancelled; `objects` is current as of the last event; `observe` hears each change once."""

    def __init__(self, client: Client, path: str, observe: Observer | None = None) -> None:
        self._client = client
        self._path = path
        self._observe: Observer = observe or (lambda change, document: None)
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except (Refused, *TRANSIENT):
                await asyncio.sleep(0.1)

    async def _follow(self) -> None:
        listed = await self._client.request("GET", self._path)
        found = {key_of(item): item for item in listed["items"]}
        for key in self.objects.keys() - found.keys():
            self._observe("gone", self.objects.pop(key))
        for key, item in found.items():
            self._take(key, item)
        self.synced.set()
        version = listed["metadata"]["resourceVersion"]
        while True:
            async for event in self._client.watch(self._path, version):
                if event["type"] == "ERROR":
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                self._apply(event)

    def _apply(self, event: Object) -> None:
        document = event["object"]
        if event["type"] == "DELETED":
            self.objects.pop(key_of(document), None)
            self._observe("gone", document)
        elif event["type"] != "BOOKMARK":
            self._take(key_of(document), document)

    def _take(self, key: Key, document: Object) -> None:
        known = self.objects.get(key)
        self.objects[key] = document
        if known is None or known["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            self._observe("changed", document)
