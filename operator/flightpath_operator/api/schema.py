"""Turns a pydantic model into a structural schema, the subset of OpenAPI that CRDs allow.

References are written out, optional fields lose their null, and keys of maps are checked by rules. Defaults of
objects are complete: servers judge them by the rules before they fill in what lies deeper.
"""

from typing import Any, Final

from pydantic import BaseModel

from flightpath_operator.api.fields import rule

Schema = dict[str, Any]

_KEPT: Final = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "not",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
"""What is taken over, in the order in which people read it."""
_INT32_MAX: Final = 2**31 - 1


def structural_schema(model: type[BaseModel]) -> Schema:
    """The schema of a model; TypeError where a field has a type that no CRD can express."""
    raw = model.model_json_schema(by_alias=True)
    return _convert(raw, raw.get("$defs", {}))


def _convert(raw: Schema, definitions: Schema) -> Schema:
    raw = _resolve(raw, definitions)
    schema: Schema = {key: raw[key] for key in _KEPT if key in raw}
    _set_default_and_format(schema, raw.get("default"))
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "properties" in raw:
        schema["properties"] = {name: _convert(field, definitions) for name, field in raw["properties"].items()}
    if "items" in raw:
        schema["items"] = _convert(raw["items"], definitions)
    if "patternProperties" in raw:
        [(pattern, values)] = raw["patternProperties"].items()
        schema["additionalProperties"] = _convert(values, definitions)
        schema["x-kubernetes-validations"] = [_key_rule(pattern, raw["propertyNames"]["maxLength"])]
    elif isinstance(raw.get("additionalProperties"), dict):
        schema["additionalProperties"] = _convert(raw["additionalProperties"], definitions)
    return schema


def _resolve(raw: Schema, definitions: Schema) -> Schema:
    """Without references, and without the null of an optional field."""
    if "anyOf" in raw:
        options = [option for option in raw["anyOf"] if option != {"type": "null"}]
        if len(options) != 1:
            raise TypeError(f"a CRD cannot express this union: {options}")
        raw = options[0] | {key: value for key, value in raw.items() if key != "anyOf"}
    if "$ref" in raw:
        target = definitions[raw["$ref"].rpartition("/")[2]]
        told = {"description": _join(raw.get("description", ""), target["description"])}
        return _resolve(target | {key: value for key, value in raw.items() if key != "$ref"} | told, definitions)
    if "const" in raw:
        return raw | {"enum": [raw["const"]]}
    return raw


def _join(field: str, model: str) -> str:
    """What the field says of itself, then what its model says."""
    return model if model.startswith(field.rstrip(".")) else f"{field} {model}"


def _key_rule(pattern: str, limit: int) -> dict[str, str]:
    return rule(
        f"self.all(key, key.size() <= {limit} && key.matches('{pattern}'))",
        f"keys must match {pattern} and have at most {limit} characters",
    )


def _set_default_and_format(schema: Schema, default: Any) -> None:
    if default not in (None, [], {}):
        schema["default"] = _without_nothing(default)
    if schema.get("type") == "integer":
        schema.setdefault("format", "int32" if schema.get("maximum", _INT32_MAX) <= _INT32_MAX else "int64")
    if schema.get("type") == "number":
        schema["format"] = "double"


def _without_nothing(default: Any) -> Any:
    if not isinstance(default, dict):
        return default
    return {key: _without_nothing(value) for key, value in default.items() if value not in (None, [], {})}
