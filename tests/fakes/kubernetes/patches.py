"""The four ways to patch an object: RFC 7386, RFC 6902, Kubernetes' strategic merge and server-side apply.

Server-side apply keeps each manager's last configuration beside the object: a field that a manager no longer sends
goes, and a field that another manager applied with another value is a conflict unless forced. Only appliers own
fields here; a real server also counts updaters.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import jsonpatch

from tests.fakes.kubernetes.errors import ApiError, Cause, bad_request

Object = dict[str, Any]
Path = tuple[str, ...]

MERGE_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port"),
    "conditions": ("type",),
    "addresses": ("type",),
    "ownerReferences": ("uid",),
    "hostAliases": ("ip",),
    "taints": ("key",),
    "topologySpreadConstraints": ("topologyKey",),
    "versions": (),
    "secrets": ("name",),
}
"""Lists that merge by key, by the name of the field: enough to tell for the kinds of this server."""
_SETS: Final = frozenset({"finalizers"})


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386; changes and returns the target."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge(target.get(name), value)
    return target


def json_patch(target: Object, patch: Any) -> Object:
    """RFC 6902; a failed test or a missing path is a 422, a patch that is none a 400."""
    try:
        patched: Object = jsonpatch.apply_patch(target, patch)
    except (jsonpatch.InvalidJsonPatch, TypeError) as error:
        raise bad_request(f"error decoding patch: {error}") from error
    except jsonpatch.JsonPatchException as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    except jsonpatch.JsonPointerException as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    return patched


def merge_key(field: str, items: list[Any]) -> str | None:
    """The key by which a list of objects merges; None where it is replaced."""
    candidates = MERGE_KEYS.get(field, ())
    dicts = [item for item in items if isinstance(item, dict)]
    return next(
        (key for key in candidates if dicts and all(key in item for item in dicts if "$patch" not in item)), None
    )


def strategic_merge(target: Any, patch: Any) -> Any:
    """Kubernetes' merge: lists of objects merge by key, with the `$patch`, `$retainKeys` and order directives."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    target = target if isinstance(target, dict) else {}
    if (kept := patch.get("$retainKeys")) is not None:
        target = {name: value for name, value in target.items() if name in kept}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            target[field] = [item for item in target.get(field) or [] if item not in value]
        elif not name.startswith("$"):
            _merge_member(target, name, value)
    for name, order in patch.items():
        if name.startswith("$setElementOrder/"):
            _order(target, name.partition("/")[2], order)
    return target


def _merge_member(target: Object, name: str, value: Any) -> None:
    if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
        target.pop(name, None)
    elif isinstance(value, list):
        target[name] = _merge_list(name, target.get(name) or [], value)
    else:
        target[name] = strategic_merge(target.get(name), value)


def _merge_list(name: str, present: list[Any], patch: list[Any]) -> list[Any]:
    if name in _SETS:
        return present + [item for item in patch if item not in present]
    key = merge_key(name, patch)
    if key is None or any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    found = list(present)
    for item in patch:
        index = next((i for i, each in enumerate(found) if each.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            found = [each for each in found if each.get(key) != item.get(key)]
        elif index is None:
            found.append(strategic_merge({}, item))
        else:
            found[index] = strategic_merge(found[index], item)
    return found


def _order(target: Object, name: str, order: list[Any]) -> None:
    items = target.get(name)
    if not isinstance(items, list):
        return
    key = merge_key(name, order)
    places = [item.get(key) if key else item for item in order]
    at = {json.dumps(place): index for index, place in enumerate(places)}
    items.sort(key=lambda item: at.get(json.dumps(item.get(key) if key else item), len(at)))


def _leaves(document: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Fields that an applied configuration sets; items of keyed lists are told by their key."""
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from _leaves(value, (*path, name))
    elif isinstance(document, list) and path and (key := merge_key(path[-1], document)):
        for item in document:
            yield from _leaves(item, (*path, f"{key}={item[key]}"))
    else:
        yield path, document


_IDENTITY: Final[frozenset[Path]] = frozenset(
    {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
)


def owned(configuration: Object) -> dict[Path, Any]:
    return {path: value for path, value in _leaves(configuration) if path and path not in _IDENTITY}


def _unset(document: Any, path: Path) -> None:
    *parents, last = path
    for index, name in enumerate(parents):
        document = _step(document, name)
        if document is None:
            return
        if index == len(parents) - 1 and isinstance(document, dict):
            document.pop(last, None)
    if not parents and isinstance(document, dict):
        document.pop(last, None)


def _step(document: Any, name: str) -> Any:
    if isinstance(document, dict):
        return document.get(name)
    if isinstance(document, list):
        key, _, value = name.partition("=")
        return next((item for item in document if str(item.get(key)) == value), None)
    return None


def _at(document: Any, path: Path) -> Any:
    for name in path:
        document = _step(document, name)
    return document


def server_side_apply(
    target: Object, configuration: Object, manager: str, managers: dict[str, Object], *, force: bool
) -> Object:
    """Changes and returns the target, and records the configuration under its manager."""
    wanted = owned(configuration)
    conflicts = [
        (other, path)
        for other, theirs in managers.items()
        if other != manager
        for path in owned(theirs)
        if path in wanted and _at(target, path) != wanted[path]
    ]
    if conflicts and not force:
        raise _apply_conflict(conflicts)
    kept = {path for other, theirs in managers.items() if other != manager for path in owned(theirs)}
    for path in owned(managers.get(manager, {})):
        if path not in wanted and path not in kept:
            _unset(target, path)
    managers[manager] = configuration
    merged: Object = strategic_merge(target, configuration)
    return merged


def _apply_conflict(conflicts: list[tuple[str, Path]]) -> ApiError:
    causes = [
        Cause(field="." + ".".join(path), reason="FieldManagerConflict", message=f'conflict with "{other}"')
        for other, path in conflicts
    ]
    listed = "\n".join(f"- {cause.field}" for cause in causes)
    plural = "conflict" if len(causes) == 1 else "conflicts"
    details = {"causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]}
    message = f"Apply failed with {len(causes)} {plural}: conflicts with {causes[0].message[14:]}:\n{listed}"
    return ApiError(409, "Conflict", message, details=details)
