"""What a reconciler decides, as data: observed objects go in, a plan comes out, nothing is touched.

Kubernetes objects are the API's own JSON (`dict`), so that unknown fields of newer servers survive.
`runtime/executor.py` carries a plan out; a plan that changes nothing costs no request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from flightpath_operator.capabilities import Capabilities

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

GROUP: Final = "flightpath.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FINALIZER: Final = f"{GROUP}/operator"
MANAGER: Final = "flightpath-operator"
"""Value of app.kubernetes.io/managed-by, and the field manager of every write."""
OWNER_LABEL: Final = f"{GROUP}/owner"
"""`<short name>.<name>` (tj.digits) on every child: what the operator's watches select."""
HASH_ANNOTATION: Final = f"{GROUP}/spec-hash"
"""Hash of a child as the operator wants it: an edit by hand or a new spec is seen without comparing defaults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What the caches hold at one moment for one parent."""

    children: tuple[Object, ...] = ()
    """Objects of the child kinds with the parent's label, and those under the names that the plan would use,
    whoever owns them."""
    nodes: Mapping[str, Object] = field(default_factory=dict)
    """Every node by name."""
    progress: Mapping[str, Any] | None = None
    """Newest report of the workers (the contract's progress object and `received_at`, seconds since the epoch)."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    problems: tuple[str, ...] = ()
    """What the API server answered to the last plan's writes, for the conditions: quota, admission, forbidden."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """A merge patch of one existing child."""

    target: Object
    """The child as it was observed."""
    body: Object


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """Deletes exactly the observed object (precondition on its uid)."""

    target: Object
    grace_s: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A Kubernetes Event on the parent, recorded once per transition."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Deletes, creates and patches run side by side; the status is written last, the finalizer first."""

    creates: tuple[Object, ...] = ()
    patches: tuple[Patch, ...] = ()
    deletes: tuple[Delete, ...] = ()
    status: Object | None = None
    """The parent's whole status; None leaves it. Equal to the present one: not written."""
    notes: tuple[Note, ...] = ()
    finalizer: bool | None = None
    """True: must be there, False: must be gone, None: as it is."""
    delete_parent: bool = False
    """The parent's ttlSecondsAfterFinished is over."""
    patch_parent: Object | None = None
    """A merge patch of the parent's spec or metadata (scale to zero)."""
    cordon: tuple[str, ...] = ()
    """Nodes to be marked unschedulable, where the settings allow it."""
    metrics: tuple[tuple[str, Mapping[str, str], float], ...] = ()
    """Counter increments of this transition: name, labels, amount."""
    again_in: timedelta | None = None
    """When to look again though nothing changed."""


def owner_reference(parent: Object) -> Object:
    """The controller reference that every child carries."""
    return {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "name": parent["metadata"]["name"],
        "uid": parent["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned(child: Object, parent: Object) -> bool:
    """Whether `parent` is the child's controller, by uid: a namesake of an earlier life is a stranger."""
    references = child["metadata"].get("ownerReferences") or []
    return any(ref.get("controller") and ref.get("uid") == parent["metadata"]["uid"] for ref in references)
