"""What a plan says, read from `terraform show -json`: typed, counted, and with sensitive values hidden.

The saved plan file holds every value in clear, so it is a secret: mode 0600, and gone after its apply.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from infra.driver.redaction import HIDDEN, Redactor, marked_texts, mask

REPLACE = "replace"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeChange:
    """One top-level attribute before and after, `(sensitive)` where Terraform marks it so."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceChange:
    address: str
    type: str
    actions: tuple[str, ...]
    """As Terraform orders them: ("delete", "create") destroys first, ("create", "delete") last."""
    attributes: tuple[AttributeChange, ...] = ()
    previous_address: str = ""
    """Set where a `moved` block renamed it."""
    identities: tuple[str, ...] = ()
    """What its cloud calls it (ARN, id, name), as far as it is known: what an audit log is asked for."""

    @property
    def action(self) -> str:
        """create, update, delete, replace, read, no-op or forget."""
        return REPLACE if len(self.actions) > 1 and "create" in self.actions else self.actions[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Each resource is counted once: a replacement is neither an add nor a destroy."""

    adds: int = 0
    changes: int = 0
    destroys: int = 0
    replaces: int = 0

    @classmethod
    def of(cls, changes: Sequence[ResourceChange]) -> Self:
        count = Counter(change.action for change in changes)
        return cls(adds=count["create"], changes=count["update"], destroys=count["delete"], replaces=count[REPLACE])


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A saved plan; `apply` takes it and nothing else."""

    path: Path
    sha256: str
    """Of the plan file: another file under the same name is not applied."""
    configuration_sha256: str
    """Of the .tf files that it was made from: Terraform itself would apply an old configuration unasked."""
    has_changes: bool
    """Terraform's own verdict (-detailed-exitcode), which counts changed outputs too."""
    destroy: bool
    summary: Summary
    changes: tuple[ResourceChange, ...]
    """What apply would do; no-ops and reads are left out, moves are not."""
    drift: tuple[ResourceChange, ...]
    """What somebody else did since the last apply."""
    document: Mapping[str, Any] = field(repr=False, compare=False)
    """All of `terraform show -json`, in clear, for policies. Treat it as a secret."""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftReport:
    """Drift is judged by a normal plan (does anything need to be done?) and attributed by what the refresh saw."""

    has_changes: bool
    drifted: tuple[ResourceChange, ...]
    """Changed or deleted outside Terraform, with the attributes; some of it may need no change back."""
    pending: tuple[ResourceChange, ...]
    """What an apply would do now."""

    @property
    def has_drift(self) -> bool:
        return self.has_changes and bool(self.drifted)

    @property
    def unattributed(self) -> tuple[ResourceChange, ...]:
        """Pending changes of resources that nobody touched: a configuration that was not applied."""
        touched = {change.address for change in self.drifted}
        return tuple(change for change in self.pending if change.address not in touched)


def learn_marked(document: Mapping[str, Any], redactor: Redactor) -> None:
    """Terraform marks `input` but not the computed attribute that repeats it: what is marked once is hidden always."""
    for key in ("resource_changes", "resource_drift"):
        for raw in document.get(key, ()):
            for side in ("before", "after"):
                for text in marked_texts(raw["change"].get(side), raw["change"].get(f"{side}_sensitive")):
                    redactor.learn(text)


def read_changes(document: Mapping[str, Any], key: str, redactor: Redactor) -> tuple[ResourceChange, ...]:
    """The changes under `resource_changes` or `resource_drift` that amount to something."""
    changes = (_read_change(raw, redactor) for raw in document.get(key, ()))
    return tuple(change for change in changes if change.action not in ("no-op", "read") or change.previous_address)


def declared_variables(document: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(document.get("configuration", {}).get("root_module", {}).get("variables", {}))


def _read_change(raw: Mapping[str, Any], redactor: Redactor) -> ResourceChange:
    change = raw["change"]
    return ResourceChange(
        address=raw["address"],
        type=raw["type"],
        actions=tuple(change["actions"]),
        attributes=_attribute_changes(change, redactor),
        previous_address=raw.get("previous_address", ""),
        identities=_identities(change, redactor),
    )


def _identities(change: Mapping[str, Any], redactor: Redactor) -> tuple[str, ...]:
    known = change.get("before") or change.get("after") or {}
    found = (known.get(key) for key in ("arn", "id", "name") if isinstance(known, Mapping))
    cleaned = dict.fromkeys(redactor.clean(name) for name in found if isinstance(name, str) and name)
    return tuple(name for name in cleaned if HIDDEN not in name)


def _attribute_changes(change: Mapping[str, Any], redactor: Redactor) -> tuple[AttributeChange, ...]:
    before, after = change.get("before"), change.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return ()  # created or deleted as a whole
    shown_before = redactor.clean_value(mask(before, change.get("before_sensitive")))
    shown_after = redactor.clean_value(mask(after, change.get("after_sensitive")))
    unknown = change.get("after_unknown") or {}
    return tuple(
        AttributeChange(
            name=name,
            before=_shown(shown_before, name),
            after="(known after apply)" if unknown.get(name) is True else _shown(shown_after, name),
        )
        for name in sorted(before.keys() | after.keys() | {name for name, mark in unknown.items() if mark is True})
        if unknown.get(name) is True or before.get(name) != after.get(name)
    )


def _shown(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, dict) else values
