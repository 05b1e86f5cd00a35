"""What a deleted namespace or a deleted CRD takes along: its contents go first, finalizers and all."""

import asyncio
from collections.abc import Callable
from functools import partial

from tests.fakes.kubernetes.crd import CLEANUP, CRD_BUCKET
from tests.fakes.kubernetes.deletion import DeleteOptions, delete
from tests.fakes.kubernetes.operations import Address, Operations
from tests.fakes.kubernetes.storage import Change, Key, Object, key_of

Place = tuple[str, Key]


class Emptier:
    """Empties namespaces and kinds that are being deleted, then lets them go."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._scheduled = False
        self._leaving: set[Place] = set()
        operations.store.listen(self._observe)

    def _observe(self, change: Change) -> None:
        if change.bucket in ("namespaces", CRD_BUCKET):
            place = (change.bucket, key_of(change.entry.object))
            if change.type == "DELETED":
                self._leaving.discard(place)
            elif "deletionTimestamp" in change.entry.object["metadata"]:
                self._leaving.add(place)
        if self._leaving and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._scheduled = False
        for place in tuple(self._leaving):
            if place[0] == CRD_BUCKET:
                self._empty([place[1][1]], "", partial(self._release_definition, place))
            else:
                self._empty(self._operations.store.buckets(), place[1][1], partial(self._release_namespace, place))

    def _empty(self, buckets: list[str], namespace: str, release: Callable[[], None]) -> None:
        left = 0
        for bucket in buckets:
            resource = self._operations.catalog.of_bucket(bucket)
            if resource is None or (namespace and not resource.namespaced):
                continue
            for key, entry in self._operations.store.items(bucket, namespace):
                if "deletionTimestamp" not in entry.object["metadata"]:
                    delete(self._operations, Address(resource=resource, namespace=key[0], name=key[1]), DeleteOptions())
                left += self._operations.store.get(bucket, key) is not None
        if not left:
            release()

    def _release_definition(self, place: Place) -> None:
        def edit(document: Object) -> None:
            document["metadata"]["finalizers"] = [
                each for each in document["metadata"].get("finalizers") or [] if each != CLEANUP
            ]

        self._edit(place, edit)

    def _release_namespace(self, place: Place) -> None:
        def edit(document: Object) -> None:
            document["spec"].pop("finalizers", None)

        self._edit(place, edit)

    def _edit(self, place: Place, edit: Callable[[Object], None]) -> None:
        resource = self._operations.catalog.of_bucket(place[0])
        if resource is not None:
            self._operations.change(resource, place[1], edit)
