"""What the server remembers: immutable objects, one counter of revisions, a bounded history for the watches.

An object that was stored is never changed: a write stores another one. So readers, watches and tests may hold it.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-wide objects is empty."""
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


def encode(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one object, with its JSON made once for every reader."""

    object: Object
    body: bytes

    def copy(self) -> Object:
        """A copy to change."""
        copied: Object = json.loads(self.body)
        return copied


@dataclass(frozen=True, slots=True)
class Change:
    revision: int
    type: ChangeType
    bucket: str
    entry: Entry
    previous: Entry | None


def key_of(document: Object) -> Key:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Store:
    """Objects by bucket (`pods`, `jobs.batch`) and key."""

    def __init__(self, history: int = 10_000) -> None:
        self.revision = 1
        self._objects: dict[str, dict[Key, Entry]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._forgotten = 0
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Calls `listener` with every change from now on; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def get(self, bucket: str, key: Key) -> Entry | None:
        return self._objects.get(bucket, {}).get(key)

    def items(self, bucket: str, namespace: str = "") -> list[tuple[Key, Entry]]:
        """In the order of etcd's keys; an empty namespace means all."""
        found = self._objects.get(bucket, {}).items()
        return sorted((item for item in found if not namespace or item[0][0] == namespace), key=lambda item: item[0])

    def count(self, bucket: str) -> int:
        return len(self._objects.get(bucket, ()))

    def buckets(self) -> list[str]:
        return [bucket for bucket, objects in self._objects.items() if objects]

    def put(self, bucket: str, document: Object) -> Entry:
        """Stores a document, which the caller gives away, under the next revision."""
        key = key_of(document)
        self.revision += 1
        document["metadata"]["resourceVersion"] = str(self.revision)
        entry = Entry(document, encode(document))
        objects = self._objects.setdefault(bucket, {})
        previous = objects.get(key)
        objects[key] = entry
        self._record(Change(self.revision, "MODIFIED" if previous else "ADDED", bucket, entry, previous))
        return entry

    def remove(self, bucket: str, key: Key) -> Entry:
        """The last state, under the revision of its removal."""
        previous = self._objects[bucket].pop(key)
        self.revision += 1
        document = previous.copy()
        document["metadata"]["resourceVersion"] = str(self.revision)
        entry = Entry(document, encode(document))
        self._record(Change(self.revision, "DELETED", bucket, entry, previous))
        return entry

    def since(self, bucket: str, revision: int) -> Iterator[Change]:
        """Changes after a revision that is not older than `oldest`."""
        found = takewhile(lambda change: change.revision > revision, reversed(self._history))
        return reversed([change for change in found if change.bucket == bucket])

    @property
    def oldest(self) -> int:
        """The oldest revision from which a watch can still start."""
        return self._forgotten

    def compact(self) -> None:
        """Forgets the history, as etcd's compaction does."""
        self._history.clear()
        self._forgotten = self.revision

    def _record(self, change: Change) -> None:
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].revision
        self._history.append(change)
        for listener in tuple(self._listeners):
            listener(change)
