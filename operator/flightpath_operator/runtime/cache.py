"""What the operator knows of the cluster: the newest version of every object that it watches.

Own writes enter it with the server's answer, so that a reconciler never decides on a state older than
what it did itself; an event that is older than what is known changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from flightpath_operator.plan import OWNER_LABEL, Object

Key = tuple[str, str]
"""Namespace (empty for cluster-wide kinds) and name."""
_REMEMBERED: Final = 4096
"""Deletions that are remembered, so that a late event does not bring an object back."""


class Cache:
    """Objects of one kind."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._by_owner: defaultdict[tuple[str, str], set[Key]] = defaultdict(set)
        self._gone: dict[str, None] = {}
        """Uids of deleted objects, oldest first."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get((namespace, name))

    def all(self) -> Iterator[Object]:
        return iter(self._objects.values())

    def owned_by(self, namespace: str, owner: str) -> list[Object]:
        """Objects whose OWNER_LABEL has this value."""
        return [self._objects[key] for key in self._by_owner.get((namespace, owner), ())]

    def put(self, obj: Object) -> bool:
        """Take an object in; False if what is known is as new."""
        key, metadata = key_of(obj), obj["metadata"]
        known = self._objects.get(key)
        if metadata.get("uid") in self._gone or (known is not None and not _is_newer(obj, known)):
            return False
        if known is not None:
            self._forget_owner(key, known)
        self._objects[key] = obj
        owner = (metadata.get("labels") or {}).get(OWNER_LABEL)
        if owner is not None:
            self._by_owner[key[0], owner].add(key)
        return True

    def drop(self, obj: Object) -> bool:
        """Forget an object that was deleted; a namesake that came later stays."""
        uid = obj["metadata"].get("uid")
        if uid is not None:
            self._gone[uid] = None
            while len(self._gone) > _REMEMBERED:
                del self._gone[next(iter(self._gone))]
        key = key_of(obj)
        known = self._objects.get(key)
        if known is None or known["metadata"].get("uid") != uid:
            return False
        self._forget_owner(key, known)
        del self._objects[key]
        return True

    def replace(self, objects: list[Object]) -> list[Object]:
        """Make it what a list said; returns what changed or went, each once."""
        listed = {key_of(obj) for obj in objects}
        gone = [obj for key, obj in self._objects.items() if key not in listed]
        for obj in gone:
            self.drop(obj)
        return [*gone, *(obj for obj in objects if self.put(obj))]

    def _forget_owner(self, key: Key, obj: Object) -> None:
        owner = (obj["metadata"].get("labels") or {}).get(OWNER_LABEL)
        if owner is None:
            return
        keys = self._by_owner[key[0], owner]
        keys.discard(key)
        if not keys:
            del self._by_owner[key[0], owner]


def key_of(obj: Object) -> Key:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _is_newer(obj: Object, known: Object) -> bool:
    """By resource version, which every server counts up; one that is no number is taken as newer."""
    if obj["metadata"].get("uid") != known["metadata"].get("uid"):
        return True
    try:
        return int(obj["metadata"]["resourceVersion"]) > int(known["metadata"]["resourceVersion"])
    except (KeyError, ValueError):
        return True
