"""The test's own hand on the objects: the same operations as over HTTP, called directly."""

from typing import Any

from tests.fakes.kubernetes.deletion import DeleteOptions, delete
from tests.fakes.kubernetes.errors import unknown_path
from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.operations import MERGE, Address, Operations
from tests.fakes.kubernetes.storage import Object


class Direct:
    """Kinds are named as kubectl names them: `pods`, `jobs.batch`, `trainingjobs.flightpath.dev`."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    @staticmethod
    def address(resource: Resource, name: str, namespace: str, subresource: str = "") -> Address:
        kept = namespace if resource.namespaced else ""
        return Address(resource=resource, namespace=kept, name=name, subresource=subresource)

    def resource(self, plural: str) -> Resource:
        """By `plural` or `plural.group`; LookupError names what is unknown."""
        catalog = self.operations.catalog
        bucket = next((each.bucket for each in catalog if plural in (each.bucket, each.plural)), plural)
        found = catalog.of_bucket(bucket)
        if found is None:
            raise LookupError(f"kind must be one that the server serves, got {plural}")
        return found

    def create(self, document: Object, namespace: str = "default") -> Object:
        """Creates a copy of an object, and a CRD's kind at once."""
        resource = self.operations.catalog.of_kind(document["apiVersion"], document["kind"])
        if resource is None:
            raise unknown_path()
        place = (document.get("metadata") or {}).get("namespace") or namespace
        copied = {**document, "metadata": dict(document.get("metadata") or {})}
        return self.operations.create(self.address(resource, "", place), _deep(copied)).copy()

    def get(self, plural: str, name: str, namespace: str = "default") -> Object:
        return self.operations.get(self.address(self.resource(plural), name, namespace)).copy()

    def find(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        """None where `get` would raise."""
        resource = self.resource(plural)
        entry = self.operations.store.get(resource.bucket, self.address(resource, name, namespace).key)
        return entry.copy() if entry else None

    def objects(self, plural: str, namespace: str = "", labels: dict[str, str] | None = None) -> list[Object]:
        found = [entry.copy() for _, entry in self.operations.store.items(self.resource(plural).bucket, namespace)]
        wanted = (labels or {}).items()
        return [each for each in found if wanted <= (each["metadata"].get("labels") or {}).items()]

    def patch(
        self, plural: str, name: str, body: Object, namespace: str = "default", *, status: bool = False
    ) -> Object:
        """A merge patch of the object, or of its status."""
        address = self.address(self.resource(plural), name, namespace, "status" if status else "")
        return self.operations.patch(address, _deep(body), MERGE)[0].copy()

    def delete(self, plural: str, name: str, namespace: str = "default", **options: Any) -> None:
        """`options` are those of `DeleteOptions`."""
        delete(self.operations, self.address(self.resource(plural), name, namespace), DeleteOptions(**options))


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _deep(member) for name, member in value.items()}
    return [_deep(member) for member in value] if isinstance(value, list) else value
