"""Reads and writes of objects with the rules of the API machinery: versions, generations, status, finalizers.

Every operation is synchronous and so atomic. Errors are `ApiError`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.fakes.kubernetes import admission, defaults, metadata, patches, quotas
from tests.fakes.kubernetes.crd import CRD_BUCKET, complete, established_status, judge, resources_of
from tests.fakes.kubernetes.errors import (
    STALE,
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
    unsupported_media_type,
)
from tests.fakes.kubernetes.kinds import Catalog, Resource
from tests.fakes.kubernetes.paging import Page, page_of
from tests.fakes.kubernetes.selection import Predicate
from tests.fakes.kubernetes.storage import Entry, Key, Object, Store, encode

MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"

_CONDITIONAL_UPDATES: Final = frozenset(
    {"leases.coordination.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """What a request's path points at."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        return (self.namespace if self.resource.namespaced else ""), self.name

    def missing(self) -> ApiError:
        return not_found(self.resource.group, self.resource.plural, self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteOptions:
    dry_run: bool = False
    strict: bool = False
    """fieldValidation=Strict: unknown fields are a 400, otherwise they are dropped."""
    manager: str = "unknown"
    force: bool = False


def _less_type(document: Object) -> Object:
    return {name: value for name, value in document.items() if name not in ("apiVersion", "kind")}


@dataclass(slots=True)
class Operations:
    store: Store
    catalog: Catalog
    appliers: dict[tuple[str, Key], dict[str, Object]] = field(default_factory=dict)
    """What each manager applied last, by object."""

    def get(self, address: Address) -> Entry:
        entry = self.store.get(address.resource.bucket, address.key)
        if entry is None:
            raise address.missing()
        return entry

    def page(self, address: Address, matches: Predicate | None, limit: int = 0, token: str = "") -> Page:
        found = self.store.items(address.resource.bucket, address.namespace)
        if matches is not None:
            found = [item for item in found if matches(item[1].object)]
        return page_of(self.store, found, limit, token)

    def create(self, address: Address, document: Object, options: WriteOptions = WriteOptions()) -> Entry:
        resource = address.resource
        metadata.identify(resource, document, address.namespace or None, None)
        metadata.begin(resource, document)
        metadata.check(resource, document)
        if resource.custom:
            if "status" in resource.subresources:
                document.pop("status", None)
        else:
            defaults.first_status(resource.bucket, document)
        self._prepare(resource, document, options)
        admission.admit(self.store, resource, document)
        name = document["metadata"]["name"]
        if self.store.get(resource.bucket, replace(address, name=name).key) is not None:
            raise already_exists(resource.group, resource.plural, name)
        quotas.check(self.store, resource, document)
        if resource.bucket == CRD_BUCKET:
            document["status"] = established_status(document["spec"])
        document = {"apiVersion": resource.stored_api_version, "kind": resource.kind, **_less_type(document)}
        if options.dry_run:
            return Entry(document, encode(document))
        entry = self.store.put(resource.bucket, document)
        self._follow(resource, entry)
        return entry

    def update(self, address: Address, document: Object, options: WriteOptions = WriteOptions()) -> Entry:
        """PUT of a whole object, or of its status."""
        resource = address.resource
        metadata.identify(resource, document, address.namespace or None, address.name)
        old = self.get(address)
        conditional = resource.custom or resource.bucket in _CONDITIONAL_UPDATES
        if conditional and not document["metadata"].get("resourceVersion"):
            text = "Invalid value: 0x0: must be specified for an update"
            cause = Cause(field="metadata.resourceVersion", reason="FieldValueInvalid", message=text)
            raise invalid(resource.group, resource.kind, address.name, [cause])
        return self._replace(address, old, document, options)

    def patch(
        self, address: Address, body: Any, kind: str, options: WriteOptions = WriteOptions()
    ) -> tuple[Entry, bool]:
        """The object after the patch, and whether server-side apply created it."""
        resource = address.resource
        if kind == APPLY:
            return self._apply(address, body, options)
        old = self.get(address)
        document = self._present(resource, old)
        if kind == JSON_PATCH:
            document = patches.json_patch(document, body)
        elif kind == MERGE:
            document = patches.merge(document, body)
        elif kind == STRATEGIC and resource.custom is None:
            document = patches.strategic_merge(document, body)
        else:
            raise unsupported_media_type(kind, [JSON_PATCH, MERGE, APPLY])
        if not isinstance(document, dict):
            raise bad_request(f"the patch must leave an object, got {type(document).__name__}")
        metadata.identify(resource, document, address.namespace or None, address.name)
        return self._replace(address, old, document, options, patched=True), False

    def _apply(self, address: Address, body: Any, options: WriteOptions) -> tuple[Entry, bool]:
        if not isinstance(body, dict):
            raise bad_request(f"an applied configuration must be an object, got {type(body).__name__}")
        configuration: Object = json.loads(json.dumps(body))
        metadata.identify(address.resource, configuration, address.namespace or None, address.name)
        place = (address.resource.bucket, address.key)
        managers = {} if options.dry_run else self.appliers.setdefault(place, {})
        old = self.store.get(*place)
        if old is None:
            managers.clear()
            managers[options.manager] = json.loads(json.dumps(configuration))
            return self.create(address, configuration, options), True
        document = patches.server_side_apply(
            self._present(address.resource, old), configuration, options.manager, managers, force=options.force
        )
        return self._replace(address, old, document, options), False

    def _present(self, resource: Resource, entry: Entry) -> Object:
        document = entry.copy()
        document["apiVersion"] = resource.api_version
        return document

    def _replace(
        self, address: Address, old: Entry, document: Object, options: WriteOptions, *, patched: bool = False
    ) -> Entry:
        resource, before = address.resource, old.object
        version = document["metadata"].get("resourceVersion")
        if version and version != before["metadata"]["resourceVersion"]:
            raise conflict(resource.group, resource.plural, address.name, STALE)
        if address.subresource == "status":
            document = self._status_write(resource, old, document)
        else:
            metadata.check_uid(resource, document, before, patched=patched)
            metadata.carry_over(resource, document, before)
            metadata.check(resource, document)
            if "status" in resource.subresources:
                document.pop("status", None)
                if "status" in before:
                    document["status"] = before["status"]
        self._prepare(resource, document, options, before)
        document["apiVersion"] = resource.stored_api_version
        self._count_generation(resource, document, before)
        document["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if document == before:
            return old
        if options.dry_run:
            return Entry(document, encode(document))
        entry = self.store.put(resource.bucket, document)
        self._follow(resource, entry)
        return self.finish_deletion(resource, entry)

    def _status_write(self, resource: Resource, old: Entry, written: Object) -> Object:
        """Nothing but the status counts; of custom resources not even the uid, of Pods the labels too."""
        document = self._present(resource, old)
        document.pop("status", None)
        if written.get("status") is not None:
            document["status"] = written["status"]
        if resource.kind == "Pod":
            metadata.check_uid(resource, written, old.object, patched=True)
            for name in ("labels", "annotations"):
                if written["metadata"].get(name):
                    document["metadata"][name] = written["metadata"][name]
        return document

    def _prepare(self, resource: Resource, document: Object, options: WriteOptions, old: Object | None = None) -> None:
        """Prunes, defaults and validates, in place."""
        if resource.custom:
            unknown = resource.custom.schema.prune(document)
            resource.custom.schema.default(document)
            causes = resource.custom.schema.validate(document)
        else:
            unknown = admission.check_fields(resource, document, strict=options.strict)
            defaults.fill_in(resource.bucket, document)
            causes = admission.problems(resource, document)
            if old is not None:
                causes += admission.changes_refused(resource, document, old)
        if unknown and options.strict:
            listed = ", ".join(f'unknown field "{each}"' for each in unknown)
            raise bad_request(f"strict decoding error: {listed}")
        if causes:
            raise invalid(resource.group, resource.kind, document["metadata"]["name"], causes)
        if resource.bucket == CRD_BUCKET:
            judge(document)
            complete(document)

    def _count_generation(self, resource: Resource, document: Object, before: Object) -> None:
        if "generation" not in before["metadata"]:
            return
        ignored = {"metadata", "apiVersion"} | ({"status"} if "status" in resource.subresources else set())
        if any(document.get(name) != before.get(name) for name in (document.keys() | before.keys()) - ignored):
            document["metadata"]["generation"] = before["metadata"]["generation"] + 1

    def _follow(self, resource: Resource, entry: Entry) -> None:
        """What the server does by itself after some writes."""
        if resource.bucket == CRD_BUCKET:
            bucket = entry.object["metadata"]["name"]
            self.catalog.remove_bucket(bucket)
            for each in resources_of(entry.object):
                self.catalog.add(each)
        elif resource.bucket == "namespaces":
            key = (entry.object["metadata"]["name"], "default")
            if "deletionTimestamp" not in entry.object["metadata"] and self.store.get("serviceaccounts", key) is None:
                accounts = self.catalog.find("", "v1", "serviceaccounts")
                assert accounts is not None
                self.create(Address(resource=accounts, namespace=key[0]), {"metadata": {"name": key[1]}})

    def finish_deletion(self, resource: Resource, entry: Entry) -> Entry:
        """Removes an object that is being deleted and waits for nobody any more."""
        marks = entry.object["metadata"]
        held = marks.get("finalizers") or marks.get("deletionGracePeriodSeconds")
        if resource.bucket == "namespaces":
            held = held or entry.object["spec"].get("finalizers")
        if "deletionTimestamp" not in marks or held:
            return entry
        return self.remove(resource, (marks.get("namespace", ""), marks["name"]))

    def remove(self, resource: Resource, key: Key) -> Entry:
        self.appliers.pop((resource.bucket, key), None)
        entry = self.store.remove(resource.bucket, key)
        if resource.bucket == CRD_BUCKET:
            self.catalog.remove_bucket(key[1])
        return entry

    def change(self, resource: Resource, key: Key, edit: Callable[[Object], None]) -> Entry | None:
        """An edit by the server itself: no admission, no generation. None if the object is gone."""
        old = self.store.get(resource.bucket, key)
        if old is None:
            return None
        document = old.copy()
        edit(document)
        if document == old.object:
            return old
        return self.finish_deletion(resource, self.store.put(resource.bucket, document))
