"""Compares the children that a parent wants with those that are there, as data.

Only objects whose controller is this very parent are patched or deleted. A namesake that is somebody else's stays
as it is and becomes a problem to tell. What others add beside the wanted fields (defaults, webhooks, autoscalers)
stays: as with server-side apply, only wanted fields that differ are set back.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flightpath_operator.names import child_labels
from flightpath_operator.plan import HASH_ANNOTATION, Delete, Object, Patch, is_owned, owner_reference
from flightpath_operator.quantities import same_quantity

_ALLOCATED: Final[Mapping[str, frozenset[str]]] = {
    "Service": frozenset({"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"}),
    "Deployment": frozenset({"replicas"}),
    "RayCluster": frozenset({"suspend"}),
}
"""Fields of a spec that the server, an autoscaler or Kueue sets: a patch never removes them."""
_QUANTITY_MAPS: Final = frozenset({"requests", "limits"})
_QUANTITIES: Final = frozenset({"averageValue", "sizeLimit"})
_CLOSED: Final = frozenset({"selector", "matchLabels", "data"})
"""Maps in which a key that somebody added changes what the object means."""
_NOT_MERGED: Final = frozenset({"apiVersion", "kind", "metadata", "status"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What brings the children from what they are to what is wanted."""

    creates: tuple[Object, ...] = ()
    patches: tuple[Patch, ...] = ()
    deletes: tuple[Delete, ...] = ()
    problems: tuple[str, ...] = ()
    """Names that somebody else's objects hold, for a condition with the reason NameTaken."""


def apply_children(parent: Object, wanted: Iterable[Object], observed: Iterable[Object]) -> Changes:
    """Creates, patches and deletes for the objects that this call governs.

    `observed`: only objects that are to be judged here. One that is the parent's and not wanted is deleted; leave
    out what another part decides on (workers' pods). One that is just being deleted is waited for.
    """
    present = {_identity(child): child for child in observed}
    creates, patches, problems = [], [], []
    identities = set()
    for child in wanted:
        complete = complete_child(parent, child)
        identities.add(_identity(complete))
        found = present.get(_identity(complete))
        if found is None:
            creates.append(complete)
        elif not is_owned(found, parent):
            problems.append(_name_taken(found))
        elif not is_going(found) and has_drifted(complete, found):
            patches.append(Patch(target=found, body=merge_patch(complete, found)))
    deletes = (
        Delete(target=child)
        for identity, child in present.items()
        if identity not in identities and is_owned(child, parent) and not is_going(child)
    )
    return Changes(
        creates=tuple(creates), patches=tuple(patches), deletes=tuple(deletes), problems=tuple(sorted(problems))
    )


def complete_child(parent: Object, child: Object) -> Object:
    """The child with namespace, labels, controller and the hash of what is wanted."""
    metadata = child["metadata"]
    annotations = {HASH_ANNOTATION: spec_hash(child)} | metadata.get("annotations", {})
    return child | {
        "metadata": metadata
        | {
            "namespace": parent["metadata"]["namespace"],
            "labels": metadata.get("labels", {}) | child_labels(parent),
            "annotations": annotations,
            "ownerReferences": [owner_reference(parent)],
        }
    }


def spec_hash(value: Any) -> str:
    """Short hash of any JSON value; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def is_going(child: Object) -> bool:
    """Whether its deletion has begun."""
    return child["metadata"].get("deletionTimestamp") is not None


def has_drifted(wanted: Object, observed: Object) -> bool:
    """Whether the child was made for another spec, or a wanted field was edited since.

    The hash tells what a comparison cannot: a field that is wanted no more.
    """
    annotations = observed["metadata"].get("annotations") or {}
    if annotations.get(HASH_ANNOTATION) != wanted["metadata"]["annotations"][HASH_ANNOTATION]:
        return True
    body = {key: value for key, value in wanted.items() if key not in _NOT_MERGED}
    labels = {key: wanted["metadata"].get(key, {}) for key in ("labels", "annotations")}
    return not (contains(observed, body) and contains(observed["metadata"], labels))


def contains(observed: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; servers drop empty values and rewrite quantities."""
    if isinstance(wanted, dict):
        there = observed if isinstance(observed, dict) else {}
        return all(_contains_field(there, key, value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return _contains_items(observed, wanted)
    return bool(observed == wanted) or (observed is None and not wanted)


def _contains_field(observed: Object, key: str, wanted: Any) -> bool:
    if key in _QUANTITIES and isinstance(wanted, int | str):
        return same_quantity(observed.get(key, ""), wanted)
    if key in _QUANTITY_MAPS and isinstance(wanted, dict):
        there = observed.get(key) or {}
        return all(name in there and same_quantity(there[name], amount) for name, amount in wanted.items())
    if key in _CLOSED and isinstance(wanted, dict) and (observed.get(key) or {}).keys() - wanted.keys():
        return False
    return contains(observed.get(key), wanted)


def _contains_items(observed: Any, wanted: list[Any]) -> bool:
    there = observed if isinstance(observed, list) else []
    if wanted and all(isinstance(item, dict) and "name" in item for item in wanted):
        by_name = {item.get("name"): item for item in there if isinstance(item, dict)}
        return all(contains(by_name.get(item["name"]), item) for item in wanted)
    return len(there) == len(wanted) and all(map(contains, there, wanted))


def merge_patch(wanted: Object, observed: Object) -> Object:
    """The merge patch that sets what is wanted and removes what no longer is; defaults come back by themselves."""
    metadata = wanted["metadata"]
    patch: Object = {"metadata": {key: metadata[key] for key in ("labels", "annotations")}}
    for key, value in wanted.items():
        if key not in _NOT_MERGED:
            kept = _ALLOCATED.get(wanted["kind"], frozenset()) if key == "spec" else frozenset()
            patch[key] = _merge(value, observed.get(key), kept)
    return patch


def _merge(wanted: Any, observed: Any, kept: frozenset[str] = frozenset()) -> Any:
    if not (isinstance(wanted, dict) and isinstance(observed, dict)):
        return wanted
    removed = {key: None for key in observed if key not in wanted and key not in kept}
    return removed | {key: _merge(value, observed.get(key)) for key, value in wanted.items()}


def _identity(child: Object) -> tuple[str, str, str]:
    """Group, kind and name: the version may differ between what is written and what is read."""
    group, _, _ = child["apiVersion"].rpartition("/")
    return group, child["kind"], child["metadata"]["name"]


def _name_taken(found: Object) -> str:
    owners = [ref for ref in found["metadata"].get("ownerReferences") or [] if ref.get("controller")]
    holder = f"belongs to {owners[0]['kind']} {owners[0]['name']}" if owners else "has no owner"
    return f"{found['kind']} {found['metadata']['name']} exists and {holder}: delete it or take another name"
