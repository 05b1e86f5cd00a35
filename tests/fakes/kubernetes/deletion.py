"""Deletes: preconditions, grace periods of Pods, finalizers and the three propagation policies."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.fakes.kubernetes.errors import bad_request, conflict
from tests.fakes.kubernetes.operations import Address, Operations
from tests.fakes.kubernetes.storage import Entry, Object, encode
from tests.fakes.kubernetes.timestamps import rfc3339

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"

_RETURNS_OBJECT: Final = frozenset({"pods", "services", "serviceaccounts", "persistentvolumeclaims", "resourcequotas"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DeleteOptions:
    grace_s: int | None = None
    policy: str = "Background"
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


def read_options(body: Any, query: dict[str, str]) -> DeleteOptions:
    """From the DeleteOptions in the body, or else from the query."""
    if body is not None and not isinstance(body, dict):
        raise bad_request(f"DeleteOptions must be an object, got {type(body).__name__}")
    body = body or {}
    conditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or query.get("propagationPolicy")
    if policy is None and body.get("orphanDependents"):
        policy = "Orphan"
    if policy not in (None, "Background", "Foreground", "Orphan"):
        raise bad_request(f"propagationPolicy must be Background, Foreground or Orphan, got {policy}")
    return DeleteOptions(
        grace_s=None if grace is None else int(grace),
        policy=policy or "Background",
        uid=conditions.get("uid") or "",
        resource_version=conditions.get("resourceVersion") or "",
        dry_run=bool(body.get("dryRun") or query.get("dryRun")),
    )


def _check_preconditions(address: Address, document: Object, options: DeleteOptions) -> None:
    metadata, resource = document["metadata"], address.resource
    for field, label, asked in (
        ("uid", "UID", options.uid),
        ("resourceVersion", "ResourceVersion", options.resource_version),
    ):
        if asked and asked != metadata[field]:
            why = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {metadata[field]}"
            raise conflict(resource.group, resource.plural, address.name, why)


def _grace(address: Address, document: Object, options: DeleteOptions) -> int:
    """Seconds that a kubelet gets; 0 for everything that runs on no node."""
    if address.resource.kind != "Pod":
        return 0
    spec, phase = document["spec"], (document.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    return int(spec["terminationGracePeriodSeconds"] if options.grace_s is None else options.grace_s)


def _finalizers(document: Object, policy: str) -> list[str]:
    present = [each for each in document["metadata"].get("finalizers") or [] if each not in (FOREGROUND, ORPHAN)]
    extra = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(policy, [])
    return present + extra


def delete(operations: Operations, address: Address, options: DeleteOptions) -> tuple[Entry, bool]:
    """The object's last state, and whether it is gone."""
    old = operations.get(address)
    _check_preconditions(address, old.object, options)
    document = old.copy()
    metadata = document["metadata"]
    grace = _grace(address, document, options)
    finalizers = _finalizers(document, options.policy)
    if "deletionTimestamp" in metadata:
        grace = min(grace, metadata.get("deletionGracePeriodSeconds", 0))
    elif "generation" in metadata:
        metadata["generation"] += 1
    bucket = address.resource.bucket
    held = bool(finalizers) or grace > 0 or bucket == "namespaces"
    announced = address.resource.kind == "Pod"  # seen with its mark even when it goes at once
    if held or announced:
        _mark(document, grace, finalizers)
    if options.dry_run:
        return Entry(document, encode(document)), not held
    entry = old if document == old.object or not (held or announced) else operations.store.put(bucket, document)
    return (entry, False) if held else (operations.remove(address.resource, address.key), True)


def _mark(document: Object, grace: int, finalizers: list[str]) -> None:
    metadata = document["metadata"]
    if "deletionTimestamp" not in metadata or grace != metadata.get("deletionGracePeriodSeconds"):
        metadata["deletionTimestamp"] = rfc3339(datetime.now(UTC) + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if document["kind"] == "Namespace":
        document["status"] = {**document.get("status", {}), "phase": "Terminating"}


def answer(address: Address, entry: Entry, gone: bool) -> Entry:
    """The object while it lives on, and for some kinds always; a Success otherwise."""
    if not gone or address.resource.bucket in _RETURNS_OBJECT:
        return entry
    details = {"name": address.name, "kind": address.resource.plural, "uid": entry.object["metadata"]["uid"]}
    if address.resource.group:
        details["group"] = address.resource.group
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Entry(status, encode(status))
