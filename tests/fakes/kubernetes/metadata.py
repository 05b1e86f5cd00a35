"""What every object's metadata must be, whatever its kind."""

import re
import secrets
import uuid
from typing import Any, Final

from tests.fakes.kubernetes.errors import ApiError, Cause, bad_request, conflict, invalid
from tests.fakes.kubernetes.kinds import Resource
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]

_DNS_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$")
_LABEL: Final = re.compile(rf"^{_DNS_LABEL}$")
_DNS_1035: Final = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_PATH_SEGMENT: Final = re.compile(r"^(?!\.{1,2}$)[^/%]+$")
_LABEL_VALUE: Final = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
_LABEL_NAME: Final = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
_ANNOTATIONS_BYTES: Final = 262_144
_KNOWN: Final = frozenset(
    {
        *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
        *("generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences"),
        *("resourceVersion", "selfLink", "uid"),
    }
)
_GENERATED: Final = "bcdfghjklmnpqrstvwxz2456789"

_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_NAME_RULES: Final[dict[str, tuple["re.Pattern[str]", int, str]]] = {
    "services": (_DNS_1035, 63, "a DNS-1035 label must consist of lower case alphanumeric characters or '-'"),
    "namespaces": (_LABEL, 63, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"),
    "roles": (_PATH_SEGMENT, 253, "may not contain '/' or '%'"),
    "rolebindings": (_PATH_SEGMENT, 253, "may not contain '/' or '%'"),
    "clusterroles": (_PATH_SEGMENT, 253, "may not contain '/' or '%'"),
    "clusterrolebindings": (_PATH_SEGMENT, 253, "may not contain '/' or '%'"),
}


def _bad(field: str, value: Any, rule: str) -> Cause:
    return Cause(field=field, reason="FieldValueInvalid", message=f'Invalid value: "{value}": {rule}')


def _name_problems(resource: Resource, name: str) -> list[Cause]:
    pattern, limit, rule = _NAME_RULES.get(resource.plural, (_SUBDOMAIN, 253, _SUBDOMAIN_RULE))
    if len(name) > limit:
        return [_bad("metadata.name", name, f"must be no more than {limit} characters")]
    return [] if pattern.match(name) else [_bad("metadata.name", name, rule)]


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (prefix and len(prefix) <= 253 and _SUBDOMAIN.match(prefix)):
        return False
    return len(name) <= 63 and bool(_LABEL_NAME.match(name))


def label_problems(labels: Object, path: str) -> list[Cause]:
    causes = [
        _bad(path, key, "name part must consist of alphanumeric characters, '-', '_' or '.'")
        for key in labels
        if not _is_qualified(key)
    ]
    for value in labels.values():
        if len(value) > 63:
            causes.append(_bad(path, value, "must be no more than 63 characters"))
        elif not _LABEL_VALUE.match(value):
            causes.append(
                _bad(path, value, "a valid label must be an empty string or consist of alphanumeric characters")
            )
    return causes


def _reference_problems(references: list[Object]) -> list[Cause]:
    causes = []
    for index, each in enumerate(references):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not each.get(field):
                path = f"metadata.ownerReferences[{index}].{field}"
                causes.append(Cause(field=path, reason="FieldValueRequired", message="Required value"))
    if sum(bool(each.get("controller")) for each in references) > 1:
        text = "Only one reference can have Controller set to true"
        causes.append(_bad("metadata.ownerReferences", "", text))
    return causes


def _types_problem(metadata: Object) -> ApiError | None:
    for name in ("labels", "annotations"):
        for key, value in (metadata.get(name) or {}).items():
            if not isinstance(value, str):
                return bad_request(
                    f"json: cannot unmarshal {type(value).__name__} into Go struct field "
                    f"ObjectMeta.metadata.{name}.{key} of type string"
                )
    return None


def check(resource: Resource, document: Object) -> None:
    """400 or 422 for metadata that a real server would not take; drops unknown and empty fields."""
    metadata = document["metadata"]
    for name in [name for name in metadata if name not in _KNOWN or metadata[name] in (None, {}, [])]:
        del metadata[name]
    metadata.pop("managedFields", None)
    if wrong := _types_problem(metadata):
        raise wrong
    causes = _name_problems(resource, metadata["name"])
    causes += label_problems(metadata.get("labels") or {}, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    causes += [
        _bad("metadata.annotations", key, "is no qualified name")
        for key in annotations
        if not _is_qualified(key.lower())
    ]
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        text = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        causes.append(Cause(field="metadata.annotations", reason="FieldValueTooLong", message=text))
    causes += _reference_problems(metadata.get("ownerReferences") or [])
    if causes:
        raise invalid(resource.group, resource.kind, metadata["name"], causes)


def identify(resource: Resource, document: Object, namespace: str | None, name: str | None) -> None:
    """Makes the document's identity and the address's one; a contradiction is a 400."""
    for field, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        got = document.setdefault(field, expected)
        if got != expected:
            raise bad_request(f"the {field} in the data ({got}) does not match the expected {field} ({expected})")
    metadata = document.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request(f"metadata must be an object, got {type(metadata).__name__}")
    for field, wanted in (("namespace", namespace), ("name", name)):
        got = metadata.get(field)
        if wanted and got and got != wanted:
            raise bad_request(
                f"the {field} of the provided object does not match the {field} sent on the request ({got} != {wanted})"
            )
        if wanted:
            metadata[field] = wanted
    if not resource.namespaced:
        metadata.pop("namespace", None)


def begin(resource: Resource, document: Object) -> None:
    """Metadata of a new object."""
    metadata = document["metadata"]
    if not metadata.get("name"):
        prefix = metadata.get("generateName")
        if not prefix:
            text = "Required value: name or generateName is required"
            raise invalid(
                resource.group,
                resource.kind,
                "",
                [Cause(field="metadata.name", reason="FieldValueRequired", message=text)],
            )
        metadata["name"] = prefix[:58] + "".join(secrets.choice(_GENERATED) for _ in range(5))
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = rfc3339()
    if resource.counts_generations or resource.custom:
        metadata["generation"] = 1
    else:
        metadata.pop("generation", None)


def check_uid(resource: Resource, document: Object, old: Object, *, patched: bool) -> None:
    """A write that means another object of the same name: 409 for a PUT, 422 for a PATCH."""
    metadata, before = document["metadata"], old["metadata"]
    if not metadata.get("uid") or metadata["uid"] == before["uid"]:
        return
    if patched:
        cause = _bad("metadata.uid", metadata["uid"], "field is immutable")
        raise invalid(resource.group, resource.kind, before["name"], [cause])
    why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
    raise conflict(resource.group, resource.plural, before["name"], why)


def carry_over(resource: Resource, document: Object, old: Object) -> None:
    """Fields that a client cannot change."""
    metadata, before = document["metadata"], old["metadata"]
    for name in (
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ):
        if name in before:
            metadata[name] = before[name]
        else:
            metadata.pop(name, None)
    added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if "deletionTimestamp" in before and added:
        rule = "no new finalizers can be added if the object is being deleted"
        text = f"Forbidden: {rule}, found new finalizers {sorted(added)}"
        cause = Cause(field="metadata.finalizers", reason="FieldValueForbidden", message=text)
        raise invalid(resource.group, resource.kind, before["name"], [cause])
