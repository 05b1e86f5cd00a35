"""Field types that the three kinds share; each carries its bounds, so that the CRD and the reader agree.

Every string, list and map is bounded: API servers estimate what a CEL rule costs from these bounds.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

MAX_NAME: Final = 44
"""Longest metadata.name: `<name>-a<attempt>-w<rank>` must stay a host name of at most 63 characters."""
NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A name that a Service may bear as well."""

_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$"
_MAX_QUANTITY: Final = 32
_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_QUALIFIED: Final = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
_LABEL_VALUE: Final = r"^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$"


class Model(BaseModel):
    """Base of every part of a spec: camelCase in JSON, frozen, no unknown fields, the docstrings are the help."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        strict=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )


def rule(expression: str, message: str) -> dict[str, str]:
    """One entry of x-kubernetes-validations. Old servers ignore it: a validator of the model says the same."""
    return {"rule": expression, "message": message}


def rules(*entries: dict[str, str]) -> ConfigDict:
    """A model's own configuration that adds rules to its schema."""
    listed: list[Any] = list(entries)
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": listed})


_Items = TypeVar("_Items", bound=tuple[Any, ...])


def _unique_by(*keys: str) -> Callable[[_Items], _Items]:
    def check(items: _Items) -> _Items:
        seen = set()
        for item in items:
            values = item if isinstance(item, dict) else item.model_dump(by_alias=True)
            identity = tuple(values.get(key) for key in keys)
            if identity in seen:
                raise ValueError(f"{', '.join(keys)} must be unique, got {'/'.join(map(str, identity))} twice")
            seen.add(identity)
        return items

    return check


def list_map(*keys: str) -> tuple[AfterValidator, Any]:
    """A list that is merged by its keys, and holds each only once."""
    extra: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    return AfterValidator(_unique_by(*keys)), Field(json_schema_extra=extra)


def _require_name(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("name"), str) or not value["name"]:
        raise ValueError(f"name must be a non-empty text, got {value.get('name')!r}")
    return value


def _require_mount(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("mountPath"), str) or not value["mountPath"]:
        raise ValueError(f"mountPath must be a non-empty text, got {value.get('mountPath')!r}")
    return _require_name(value)


def preserved(description: str, **properties: Any) -> WithJsonSchema:
    """An object of Kubernetes' own API, handed on as it is; `properties` are the fields that must be there."""
    schema: dict[str, Any] = {
        "type": "object",
        "description": description,
        "x-kubernetes-preserve-unknown-fields": True,
        "maxProperties": 64,
    }
    if properties:
        schema |= {"properties": properties, "required": sorted(properties)}
    return WithJsonSchema(schema)


def _text(limit: int, description: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": limit, "description": description}


Name = Annotated[str, Field(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
"""Name of another object of the namespace."""
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
QualifiedName = Annotated[str, Field(min_length=1, max_length=253, pattern=_QUALIFIED)]
Image = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\s]+$")]
Argument = Annotated[str, Field(max_length=4096)]
Arguments = Annotated[tuple[Argument, ...], Field(max_length=256)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
PositiveSeconds = Annotated[int, Field(ge=1, le=31_536_000)]
Port = Annotated[int, Field(ge=1024, le=65535)]


def _check_quantity(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and len(value) <= _MAX_QUANTITY and re.fullmatch(_QUANTITY, value):
        return value
    raise ValueError(f"must be a quantity such as 2, 500m or 16Gi, got {value!r}")


Quantity = Annotated[
    int | str,
    PlainValidator(_check_quantity),
    WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": _MAX_QUANTITY, "pattern": _QUANTITY}
    ),
]
"""Kubernetes' resource quantity: 2, "500m", "16Gi"."""
Quantities = Annotated[dict[QualifiedName, Quantity], Field(max_length=32)]
NodeSelector = Annotated[dict[QualifiedName, LabelValue], Field(max_length=64)]


class Resources(Model):
    """What each container asks for and may use at most; GPUs are added from their own field."""

    requests: Quantities = Field(default_factory=dict)
    """Amounts that the scheduler reserves, for example cpu and memory."""
    limits: Quantities = Field(default_factory=dict)
    """Amounts that may not be exceeded."""


class EnvVar(Model):
    """One environment variable: a value, or where to read it."""

    model_config = rules(rule("!(has(self.value) && has(self.valueFrom))", "value and valueFrom exclude each other"))

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._A-Za-z][-._A-Za-z0-9]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Its value."""
    value_from: Annotated[dict[str, Any], preserved("A Kubernetes EnvVarSource.")] | None = None
    """A Kubernetes EnvVarSource: secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.value is not None and self.value_from is not None:
            raise ValueError("value and valueFrom exclude each other, got both")
        return self


Environment = Annotated[tuple[EnvVar, ...], Field(max_length=256), *list_map("name")]


class Toleration(Model):
    """A taint that the pods bear, as in a pod's spec."""

    key: QualifiedName | None = None
    """Key of the taint; empty with Exists matches all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; all of them when absent."""
    toleration_seconds: Seconds | None = None
    """How long a NoExecute taint is borne; for ever when absent."""


class LocalReference(Model):
    """An object of the same namespace."""

    name: Name
    """Its name."""


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=64)]
PullSecrets = Annotated[tuple[LocalReference, ...], Field(max_length=16), *list_map("name")]
Volumes = Annotated[
    tuple[
        Annotated[
            dict[str, Any],
            AfterValidator(_require_name),
            preserved("A Kubernetes Volume.", name=_text(63, "Name of the volume.")),
        ],
        ...,
    ],
    Field(max_length=64),
    *list_map("name"),
]
VolumeMounts = Annotated[
    tuple[
        Annotated[
            dict[str, Any],
            AfterValidator(_require_mount),
            preserved(
                "A Kubernetes VolumeMount.",
                name=_text(63, "Name of the volume."),
                mountPath=_text(1024, "Where the volume appears in the container."),
            ),
        ],
        ...,
    ],
    Field(max_length=64),
    *list_map("mountPath"),
]
PodSecurityContext = Annotated[dict[str, Any], preserved("A Kubernetes PodSecurityContext.")]
