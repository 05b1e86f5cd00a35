"""Garbage collection by owner references: background, foreground and orphaning deletes.

It works on the event loop's next turn after a change, where a real one takes up to seconds.
"""

import asyncio
from collections.abc import Callable

from tests.fakes.kubernetes.deletion import FOREGROUND, ORPHAN, DeleteOptions, delete
from tests.fakes.kubernetes.operations import Address, Operations
from tests.fakes.kubernetes.storage import Change, Entry, Key, Object, key_of

Place = tuple[str, Key]


def _owners(document: Object) -> list[Object]:
    return document["metadata"].get("ownerReferences") or []


class GarbageCollector:
    """Deletes dependents whose owners are gone; finishes foreground and orphaning deletes."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._live: dict[str, Place] = {}
        self._dependents: dict[str, set[Place]] = {}
        self._waiting: dict[Place, None] = {}
        self._scheduled = False
        operations.store.listen(self._observe)

    def _observe(self, change: Change) -> None:
        document = change.entry.object
        place = (change.bucket, key_of(document))
        uid = document["metadata"]["uid"]
        if change.previous is not None:
            for owner in _owners(change.previous.object):
                self._dependents.get(owner["uid"], set()).discard(place)
        if change.type == "DELETED":
            self._live.pop(uid, None)
            for dependent in self._dependents.pop(uid, ()):
                self._enqueue(dependent)
            for owner in _owners(document):
                if owner["uid"] in self._live:
                    self._enqueue_owner(self._live[owner["uid"]])
            return
        self._live[uid] = place
        for owner in _owners(document):
            self._dependents.setdefault(owner["uid"], set()).add(place)
        if any(owner["uid"] not in self._live for owner in _owners(document)):
            self._enqueue(place)
        if "deletionTimestamp" in document["metadata"]:
            self._enqueue_owner(place)

    def _enqueue_owner(self, place: Place) -> None:
        entry = self._operations.store.get(*place)
        metadata = entry.object["metadata"] if entry else {}
        if "deletionTimestamp" in metadata and set(metadata.get("finalizers") or ()) & {FOREGROUND, ORPHAN}:
            self._enqueue(place)

    def _enqueue(self, place: Place) -> None:
        self._waiting[place] = None
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        """A bounded share of the waiting objects, so that requests are served between."""
        for place in list(self._waiting)[:50]:
            del self._waiting[place]
            entry = self._operations.store.get(*place)
            if entry is not None:
                self._settle(place, entry)
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._work)

    def _settle(self, place: Place, entry: Entry) -> None:
        metadata = entry.object["metadata"]
        finalizers = metadata.get("finalizers") or []
        if "deletionTimestamp" in metadata and FOREGROUND in finalizers:
            self._delete_dependents_first(place, metadata)
        elif "deletionTimestamp" in metadata and ORPHAN in finalizers:
            for dependent in tuple(self._dependents.get(metadata["uid"], ())):
                self._disown(dependent, {metadata["uid"]})
            self._drop_finalizer(place, ORPHAN)
        elif _owners(entry.object):
            self._judge_dependent(place, entry)

    def _judge_dependent(self, place: Place, entry: Entry) -> None:
        dangling = {owner["uid"] for owner in _owners(entry.object) if owner["uid"] not in self._live}
        leaving = {owner["uid"] for owner in _owners(entry.object) if self._is_leaving(owner["uid"])}
        if len(dangling | leaving) == len(_owners(entry.object)):
            self._delete(place, entry)
        elif dangling:
            self._disown(place, dangling)

    def _is_leaving(self, uid: str) -> bool:
        """Whether an owner waits in a foreground delete."""
        place = self._live.get(uid)
        entry = self._operations.store.get(*place) if place else None
        return entry is not None and FOREGROUND in (entry.object["metadata"].get("finalizers") or ())

    def _delete_dependents_first(self, place: Place, metadata: Object) -> None:
        blocking = 0
        for dependent in tuple(self._dependents.get(metadata["uid"], ())):
            entry = self._operations.store.get(*dependent)
            if entry is None:
                continue
            mine = [owner for owner in _owners(entry.object) if owner["uid"] == metadata["uid"]]
            if "deletionTimestamp" not in entry.object["metadata"]:
                self._judge_dependent(dependent, entry)
            if self._operations.store.get(*dependent) is not None and any(
                each.get("blockOwnerDeletion") for each in mine
            ):
                blocking += 1
        if not blocking:
            self._drop_finalizer(place, FOREGROUND)

    def _delete(self, place: Place, entry: Entry) -> None:
        resource = self._operations.catalog.of_bucket(place[0])
        if resource is None or "deletionTimestamp" in entry.object["metadata"]:
            return
        address = Address(resource=resource, namespace=place[1][0], name=place[1][1])
        foreground = any(self._dependents.get(entry.object["metadata"]["uid"], ())) and any(
            self._is_leaving(owner["uid"]) for owner in _owners(entry.object)
        )
        delete(self._operations, address, DeleteOptions(policy="Foreground" if foreground else "Background"))

    def _disown(self, place: Place, uids: set[str]) -> None:
        def edit(document: Object) -> None:
            kept = [owner for owner in _owners(document) if owner["uid"] not in uids]
            document["metadata"].pop("ownerReferences")
            if kept:
                document["metadata"]["ownerReferences"] = kept

        self._change(place, edit)

    def _drop_finalizer(self, place: Place, finalizer: str) -> None:
        def edit(document: Object) -> None:
            kept = [each for each in document["metadata"].get("finalizers") or [] if each != finalizer]
            document["metadata"].pop("finalizers", None)
            if kept:
                document["metadata"]["finalizers"] = kept

        self._change(place, edit)

    def _change(self, place: Place, edit: Callable[[Object], None]) -> None:
        resource = self._operations.catalog.of_bucket(place[0])
        if resource is not None:
            self._operations.change(resource, place[1], edit)
