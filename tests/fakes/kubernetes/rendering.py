"""Objects in the form that the client accepts: as they are, as Tables, or as their metadata alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.paging import Page
from tests.fakes.kubernetes.storage import Entry, Object, encode
from tests.fakes.kubernetes.tables import partial_metadata, table

_FORMS: Final = ("Table", "PartialObjectMetadataList", "PartialObjectMetadata")


@dataclass(frozen=True, slots=True)
class Form:
    """What one client wants of one kind."""

    resource: Resource
    kind: str = ""
    """Table, PartialObjectMetadata, or empty for whole objects."""
    include: str = "Metadata"

    @property
    def one(self) -> Callable[[Entry], bytes]:
        """Renders one object."""
        if self.kind == "Table":
            return lambda entry: table(self.resource, [entry], _versions(entry), self.include)
        if self.kind:
            return lambda entry: encode(partial_metadata(entry))
        return self._whole

    def _whole(self, entry: Entry) -> bytes:
        if entry.object.get("apiVersion") in (self.resource.api_version, "v1"):
            return entry.body
        if entry.object.get("apiVersion") != self.resource.stored_api_version:
            return entry.body
        return encode({**entry.object, "apiVersion": self.resource.api_version})

    def page(self, page: Page) -> bytes:
        """Renders a list."""
        metadata: Object = {"resourceVersion": str(page.revision)}
        if page.token:
            metadata |= {"continue": page.token, "remainingItemCount": page.remaining}
        if self.kind == "Table":
            return table(self.resource, list(page.entries), metadata, self.include)
        if self.kind:
            items = [partial_metadata(entry) for entry in page.entries]
            kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return encode({**kind, "metadata": metadata, "items": items})
        head = {"kind": f"{self.resource.kind}List", "apiVersion": self.resource.api_version, "metadata": metadata}
        bodies = b",".join(self._item(entry) for entry in page.entries)
        return encode(head)[:-1] + b',"items":[' + bodies + b"]}"

    def _item(self, entry: Entry) -> bytes:
        """Items of built-in kinds come without their kind, as they do from real servers."""
        if self.resource.custom:
            return self._whole(entry)
        prefix = encode({name: entry.object[name] for name in ("apiVersion", "kind")})[:-1] + b","
        if entry.body.startswith(prefix):
            return b"{" + entry.body[len(prefix) :]
        return encode({name: value for name, value in entry.object.items() if name not in ("apiVersion", "kind")})


def _versions(entry: Entry) -> Object:
    return {"resourceVersion": entry.object["metadata"]["resourceVersion"]}


def accepted_form(resource: Resource, accept: str, include: str) -> Form:
    """The first of the accepted forms that is known."""
    for part in accept.split(","):
        words = dict(word.strip().partition("=")[::2] for word in part.split(";")[1:])
        if words.get("as") in _FORMS and words.get("v", "v1") == "v1":
            kind = words["as"]
            return Form(resource, "Table" if kind == "Table" else "PartialObjectMetadata", include or "Metadata")
    return Form(resource)
