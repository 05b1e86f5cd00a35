"""Structural schemas: prune, default and validate as the API server does, with its words and its causes.

Covers the OpenAPI v3 subset that CRDs may use. CEL rules (`x-kubernetes-validations`) are not evaluated: a test
that needs them runs against a real control plane.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from tests.fakes.kubernetes.errors import Cause

Object = dict[str, Any]
Causes = list[Cause]

_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_SCALARS: Final = frozenset({"string", "boolean", "number", "integer"})
_UNCONSTRAINING: Final = frozenset({"type", "description", "default", "nullable"})
_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and isinstance(value, int | float) and value == int(value),
}


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not value.is_integer():
        return "number"
    return next(name for name in ("object", "array", "string", "boolean", "integer") if _TYPES[name](value))


def _is_date_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Schema:
    """One node; its children are built when they are first met, so schemas may recur."""

    def __init__(self, document: Object, resolve: Callable[[str], Object] | None = None) -> None:
        """`resolve` finds the documents of `$ref`; such schemas are of Go types, for which null is the zero value."""
        self._resolve = resolve
        self.document = document
        self.type: str | None = document.get("type")
        self.int_or_string = bool(document.get("x-kubernetes-int-or-string"))
        self.preserves = bool(document.get(_PRESERVE))
        self.embedded = bool(document.get("x-kubernetes-embedded-resource"))
        self._is_bare = self.type in _SCALARS and not document.keys() - _UNCONSTRAINING
        self.names: Object = document.get("properties") or {}
        self._properties: dict[str, Schema] = {}

    def _child(self, document: Object) -> "Schema":
        if "$ref" in document and self._resolve is not None:
            document = self._resolve(document["$ref"])
        return Schema(document, self._resolve)

    def property(self, name: str) -> "Schema":
        child = self._properties.get(name)
        if child is None:
            child = self._properties[name] = self._child(self.names[name])
        return child

    @cached_property
    def items(self) -> "Schema | None":
        return self._child(self.document["items"]) if "items" in self.document else None

    @cached_property
    def extra(self) -> "Schema | None":
        """The schema of properties that are not named."""
        extra = self.document.get("additionalProperties")
        return self._child({} if extra is True else extra) if extra else None

    @cached_property
    def _pattern(self) -> "re.Pattern[str] | None":
        return re.compile(self.document["pattern"]) if "pattern" in self.document else None

    @cached_property
    def _junctors(self) -> dict[str, list["Schema"]]:
        names = ("allOf", "anyOf", "oneOf")
        return {name: [self._child(each) for each in self.document[name]] for name in names if name in self.document}

    @cached_property
    def _not(self) -> "Schema | None":
        return self._child(self.document["not"]) if "not" in self.document else None

    def _members(self, value: Any) -> Iterator[tuple[str, "Schema", Any]]:
        """(path below this node, schema, value) of everything that has a schema."""
        if isinstance(value, dict):
            for name, member in value.items():
                if name in self.names:
                    yield f".{name}", self.property(name), member
                elif self.extra is not None:
                    yield f"[{name}]" if self.type == "object" and not self.names else f".{name}", self.extra, member
        elif isinstance(value, list) and self.items is not None:
            for index, member in enumerate(value):
                yield f"[{index}]", self.items, member

    def prune(self, value: Any, path: str = "") -> list[str]:
        """Removes what the schema does not name, in place; returns the paths."""
        gone: list[str] = []
        if isinstance(value, dict) and not self.preserves and self.extra is None:
            kept = {"apiVersion", "kind", "metadata"} if self.embedded or not path else set()
            unknown = [name for name in value if name not in self.names and name not in kept]
            gone = [f"{path}.{name}".lstrip(".") for name in unknown]
            for name in unknown:
                del value[name]
        for below, schema, member in self._members(value):
            if isinstance(member, dict | list) and (path or below != ".metadata"):
                gone += schema.prune(member, path + below)
        return gone

    def default(self, value: Any) -> None:
        """Fills in defaults, in place; null in a field with a default that is not nullable counts as absent."""
        if isinstance(value, dict):
            for name, document in self.names.items():
                has = "default" in document
                if has and (name not in value or (value[name] is None and not document.get("nullable"))):
                    value[name] = json.loads(json.dumps(document["default"]))
                elif name in value and value[name] is None and not document.get("nullable") and "type" in document:
                    del value[name]
        for _, schema, member in self._members(value):
            if isinstance(member, dict | list):
                schema.default(member)

    def validate(self, value: Any, path: str = "") -> Causes:
        """Every violation, in the order of the fields."""
        if value is None and (self.document.get("nullable") or self.type is None or self._resolve is not None):
            return []
        if wrong := self._type_problem(value, path):
            return [wrong]
        if self._is_bare:
            return []
        causes = list(self._value_problems(value, path))
        causes += self._junctor_problems(value, path)
        for below, schema, member in self._members(value):
            if path or below != ".metadata":
                causes += schema.validate(member, path + below)
        return causes

    def _type_problem(self, value: Any, path: str) -> Cause | None:
        if self.int_or_string:
            if _TYPES["integer"](value) or isinstance(value, str):
                return None
            expected = "integer,string"
        elif self.type is None or _TYPES[self.type](value):
            return None
        else:
            expected = self.type
        got = _type_name(value)
        shown = path.lstrip(".") or "<nil>"
        text = f'Invalid value: "{got}": {shown} in body must be of type {expected}: "{got}"'
        return Cause(field=shown, reason="FieldValueTypeInvalid", message=text)

    def _value_problems(self, value: Any, path: str) -> Iterator[Cause]:
        shown = path.lstrip(".")
        if isinstance(value, dict):
            yield from self._object_problems(value, path)
        elif isinstance(value, list):
            yield from self._array_problems(value, shown)
        elif isinstance(value, str):
            yield from self._string_problems(value, shown)
        elif _TYPES["number"](value):
            yield from self._number_problems(value, shown)
        allowed = self.document.get("enum")
        # A truth value is no number here, though Python says so.
        if allowed is not None and not any(type(value) is type(each) and value == each for each in allowed):
            listed = ", ".join(f'"{each}"' if isinstance(each, str) else json.dumps(each) for each in allowed)
            got = json.dumps(value)
            yield Cause(
                field=shown,
                reason="FieldValueNotSupported",
                message=f"Unsupported value: {got}: supported values: {listed}",
            )

    def _object_problems(self, value: Object, path: str) -> Iterator[Cause]:
        for name in self.document.get("required") or ():
            if name not in value:
                yield Cause(field=f"{path}.{name}".lstrip("."), reason="FieldValueRequired", message="Required value")
        shown = path.lstrip(".")
        least, most = self.document.get("minProperties", 0), self.document.get("maxProperties")
        if len(value) < least:
            yield _bad(shown, len(value), f"should have at least {least} properties")
        if most is not None and len(value) > most:
            yield _many(shown, len(value), most)

    def _array_problems(self, value: list[Any], shown: str) -> Iterator[Cause]:
        least, most = self.document.get("minItems", 0), self.document.get("maxItems")
        if len(value) < least:
            yield _bad(shown, len(value), f"should have at least {least} items")
        if most is not None and len(value) > most:
            yield _many(shown, len(value), most)
        kind = self.document.get("x-kubernetes-list-type")
        keys = self.document.get("x-kubernetes-list-map-keys") or ()
        if kind not in ("set", "map") and not self.document.get("uniqueItems"):
            return
        seen: list[Any] = []
        for index, item in enumerate(value):
            identity = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
            if identity in seen:
                text = f"Duplicate value: {json.dumps(identity)}"
                yield Cause(field=f"{shown}[{index}]", reason="FieldValueDuplicate", message=text)
            seen.append(identity)

    def _string_problems(self, value: str, shown: str) -> Iterator[Cause]:
        least, most = self.document.get("minLength", 0), self.document.get("maxLength")
        if len(value) < least:
            yield _bad(shown, value, f"should be at least {least} chars long")
        if most is not None and len(value) > most:
            yield Cause(field=shown, reason="FieldValueTooLong", message=f"Too long: may not be more than {most} bytes")
        if self._pattern is not None and not self._pattern.search(value):
            yield _bad(shown, value, f"should match '{self.document['pattern']}'")
        if self.document.get("format") == "date-time" and not _is_date_time(value):
            yield _bad(shown, value, f'must be of type date-time: "{value}"')

    def _number_problems(self, value: float, shown: str) -> Iterator[Cause]:
        least, most = self.document.get("minimum"), self.document.get("maximum")
        if least is not None and self.document.get("exclusiveMinimum") and value <= least:
            yield _bad(shown, value, f"should be greater than {least}")
        elif least is not None and value < least:
            yield _bad(shown, value, f"should be greater than or equal to {least}")
        if most is not None and self.document.get("exclusiveMaximum") and value >= most:
            yield _bad(shown, value, f"should be less than {most}")
        elif most is not None and value > most:
            yield _bad(shown, value, f"should be less than or equal to {most}")
        step = self.document.get("multipleOf")
        if step and value % step:
            yield _bad(shown, value, f"should be a multiple of {step}")

    def _junctor_problems(self, value: Any, path: str) -> Iterator[Cause]:
        shown = path.lstrip(".")
        for name, schemas in self._junctors.items():
            results = [schema.validate(value, path) for schema in schemas]
            valid = sum(not causes for causes in results)
            if name == "allOf":
                yield from (cause for causes in results for cause in causes)
            elif name == "anyOf" and not valid:
                yield _bad(shown, value, "must validate at least one schema (anyOf)")
            elif name == "oneOf" and valid != 1:
                found = "Found none valid" if not valid else f"Found {valid} valid alternatives"
                yield _bad(shown, value, f"must validate one and only one schema (oneOf). {found}")
        if self._not is not None and not self._not.validate(value, path):
            yield _bad(shown, value, "must not validate the schema (not)")


def _bad(shown: str, value: Any, text: str) -> Cause:
    value = json.dumps(value)
    return Cause(field=shown, reason="FieldValueInvalid", message=f"Invalid value: {value}: {shown} in body {text}")


def _many(shown: str, got: int, most: int) -> Cause:
    return Cause(field=shown, reason="FieldValueTooMany", message=f"Too many: {got}: must have at most {most} items")
