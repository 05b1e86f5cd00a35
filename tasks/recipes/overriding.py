"""Changing a recipe without editing it: `{"epochs": 3, "optimizer.peak_learning_rate": 1e-3, "family.hidden": 128}`.

A dot leads into a part of the recipe: `optimizer` and `resources`, and `data`, `family` and `packing` where what the
recipe makes of them is a dataclass. Each value is held against the type of the field that it replaces.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from serving.errors import FlightpathError, InvalidInput
from serving.files import canonical_json
from tasks.recipes.recipe import Recipe

_EXPECTED: Final = 'a JSON object such as {"epochs": 3, "optimizer.peak_learning_rate": 1e-3}'
_MADE: Final = ("data", "family", "packing")
"""Fields that hold a function: what it returns is changed each time it is called."""
_FIXED: Final = ("reference", "overrides", "sources")
_MOST_CHARACTERS: Final = 64 * 1024


def overridden(recipe: Recipe, overrides: str) -> Recipe:
    """The recipe with `overrides`, a JSON object; an empty text or object changes nothing.

    Raises:
        InvalidInput: it is no JSON object, a name is none of the recipe's, a value is of another type, or the recipe
            refuses it.
    """
    changes = parse_overrides(overrides)
    if not changes:
        return recipe
    try:
        return replace(recipe, **_typed(recipe, changes, ""), overrides=canonical_json(changes).decode())
    except FlightpathError:
        raise
    except Exception as refused:
        # A user's dataclass refuses in its own words, and may have fields that no JSON can fill.
        what = f"{type(refused).__name__}: {refused}"
        raise InvalidInput(f"overrides do not fit the recipe ({what})", got=overrides, expected=_EXPECTED) from refused


def parse_overrides(overrides: str) -> dict[str, Any]:
    """The changes by name."""
    if not overrides.strip():
        return {}
    if len(overrides) > _MOST_CHARACTERS:
        raise InvalidInput("overrides are too long", got=len(overrides), expected=f"<= {_MOST_CHARACTERS} characters")
    try:
        changes = json.loads(overrides, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as malformed:
        raise InvalidInput(f"overrides are no JSON ({malformed})", got=overrides, expected=_EXPECTED) from malformed
    if not isinstance(changes, dict):
        raise InvalidInput("overrides are no object", got=overrides, expected=_EXPECTED)
    return changes


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(names := dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return names


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _typed(owner: Any, changes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """New values of the owner's fields, by name. `owner` is the recipe or a dataclass in it."""
    types = {of.name: of.type for of in fields(owner) if of.init and (prefix or of.name not in _FIXED)}
    by_field: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        by_field.setdefault(first, {})[rest] = value
    typed = {}
    for first, values in by_field.items():
        name = prefix + first
        if first not in types:
            raise InvalidInput(
                f"unknown override {name!r}", got=values.get("", values), expected=" | ".join(sorted(types))
            )
        if "" not in values:
            typed[first] = _deeper(getattr(owner, first), values, f"{name}.", made=not prefix and first in _MADE)
        elif len(values) > 1:
            raise InvalidInput(f"overrides change {name} and fields of it", got=values, expected="one of both")
        elif not prefix and first in _MADE:
            raise InvalidInput(f"override {name} is code", got=values[""], expected=f"fields of it, such as {name}.…")
        else:
            typed[first] = _checked(_resolved(owner, first, types[first]), values[""], name)
    return typed


def _deeper(current: Any, values: Mapping[str, Any], prefix: str, *, made: bool) -> Any:
    """A part with some of its fields changed; of a function that makes it, one that makes it so."""
    part = current() if made else current
    if not is_dataclass(part) or isinstance(part, type):
        raise InvalidInput(
            f"override leads into {prefix[:-1]}, which has no fields", got=type(part).__name__, expected="a dataclass"
        )
    typed = _typed(part, values, prefix)
    changed = replace(part, **typed)
    return (lambda: replace(current(), **typed)) if made else changed


def _resolved(owner: Any, name: str, kind: Any) -> Any:
    """A field's type, which `from __future__ import annotations` leaves as text."""
    if not isinstance(kind, str):
        return kind
    try:
        return get_type_hints(type(owner))[name]
    except NameError as unknown:
        raise InvalidInput(f"type of {name} is unknown ({unknown})", got=kind, expected="an imported type") from unknown


def _checked(kind: Any, value: Any, name: str) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind, config=None if is_dataclass(kind) else _STRICT)
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as refused:
        found = refused.errors()[0]
        raise InvalidInput(f"override {name} is of another type", got=value, expected=found["msg"]) from refused


_STRICT: Final = ConfigDict(strict=True, allow_inf_nan=False)
