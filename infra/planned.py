"""The world as a plan would leave it, read from `terraform show -json`: what policies judge and costs count.

A value is known, known only after the apply, or not there. Of the second kind the plan tells whether the configuration
sets it at all, so an omitted key is not mistaken for a key that another resource is about to get.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from serving.errors import InvalidInput

_INDEX: Final = re.compile(r"\[[^\]]*\]")


class InvalidPlan(InvalidInput):
    code = "plan_document"


class Value(Enum):
    UNKNOWN = "known after apply"
    """The configuration sets it, from what is not there yet."""
    MISSING = "not set"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedResource:
    """One managed resource after the apply, or, if it goes, before it."""

    address: str
    type: str
    module: str
    """Address of its module, empty at the root."""
    actions: tuple[str, ...]
    values: Mapping[str, Any]
    """As it will be; as it was, if it goes."""
    unknown: Mapping[str, Any]
    configured: Mapping[str, Any] = field(repr=False)
    """Expressions of the configuration by argument."""
    replaced_because: tuple[str, ...] = ()
    """Attributes that cannot be changed in place."""

    @property
    def stays(self) -> bool:
        """False where an apply would leave none behind."""
        return self.actions not in (("delete",), ("forget",))

    @property
    def destroys(self) -> bool:
        """Whether what is there now goes, with its content: also when another takes its place."""
        return "delete" in self.actions

    def read(self, path: str) -> list[Any]:
        """Each value at a dotted path, through every element of a list: `vpc_config.endpoint_public_access`."""
        first, *rest = path.split(".")
        return list(_walk(self.values, self.unknown, [first, *rest], self.configured.get(first)))

    def one(self, path: str, default: Any = None) -> Any:
        """The first known value at a path, or the default."""
        known = (value for value in self.read(path) if not isinstance(value, Value) and value is not None)
        return next(known, default)

    def refers_to(self, argument: str, other: "PlannedResource") -> bool:
        """Whether an argument is set from another resource of the same module."""
        expression = self.configured.get(argument)
        references = expression.get("references", ()) if isinstance(expression, Mapping) else ()
        local = _INDEX.sub("", other.address.removeprefix(f"{other.module}."))
        return self.module == other.module and any(
            name == local or name.startswith((f"{local}.", f"{local}[")) for name in references
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedWorld:
    resources: tuple[PlannedResource, ...]
    provider_regions: Mapping[str, str]
    """Region that each provider is configured for, where the plan tells it."""

    def of_type(self, *types: str) -> tuple[PlannedResource, ...]:
        return tuple(resource for resource in self.staying if resource.type in types)

    @property
    def staying(self) -> tuple[PlannedResource, ...]:
        return tuple(resource for resource in self.resources if resource.stays)


def read_world(document: Mapping[str, Any]) -> PlannedWorld:
    """From the whole document of a plan (`Plan.document`)."""
    if "resource_changes" not in document and "planned_values" not in document:
        raise InvalidPlan("this is no plan of Terraform", got=sorted(document), expected="terraform show -json of one")
    configured = dict(_configured(document.get("configuration", {}).get("root_module", {}), ""))
    changes = (raw for raw in document.get("resource_changes", ()) if raw.get("mode", "managed") == "managed")
    return PlannedWorld(
        resources=tuple(_resource(raw, configured) for raw in changes if raw["change"]["actions"] != ["read"]),
        provider_regions=_provider_regions(document),
    )


def _resource(raw: Mapping[str, Any], configured: Mapping[str, Mapping[str, Any]]) -> PlannedResource:
    change = raw["change"]
    paths = change.get("replace_paths") or ()
    return PlannedResource(
        address=raw["address"],
        type=raw["type"],
        module=raw.get("module_address", ""),
        actions=tuple(change["actions"]),
        values=change.get("after") or change.get("before") or {},
        unknown=change.get("after_unknown") or {},
        configured=configured.get(_INDEX.sub("", raw["address"]), {}),
        replaced_because=tuple(".".join(str(part) for part in path) for path in paths),
    )


def _configured(module: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for resource in module.get("resources", ()):
        yield f"{prefix}{resource['address']}", resource.get("expressions", {})
    for name, call in module.get("module_calls", {}).items():
        yield from _configured(call.get("module", {}), f"{prefix}module.{name}.")


def _walk(values: Any, unknown: Any, path: list[str], configured: Any) -> Iterator[Any]:
    if unknown is True:
        # A computed attribute that nothing sets is unknown too; the configuration tells the two apart.
        yield Value.UNKNOWN if configured is not None else Value.MISSING
    elif isinstance(values, list) or isinstance(unknown, list):
        yield from _walk_list(values, unknown, path, configured)
    elif not path:
        yield Value.MISSING if values is None else values
    else:
        inner = values.get(path[0]) if isinstance(values, Mapping) else None
        mark = unknown.get(path[0]) if isinstance(unknown, Mapping) else None
        yield from _walk(inner, mark, path[1:], configured)


def _walk_list(values: Any, unknown: Any, path: list[str], configured: Any) -> Iterator[Any]:
    items = values if isinstance(values, list) else []
    marks = unknown if isinstance(unknown, list) else []
    if not items and not marks:
        yield Value.MISSING
    for index in range(max(len(items), len(marks))):
        item = items[index] if index < len(items) else None
        mark = marks[index] if index < len(marks) else None
        yield from _walk(item, mark, path, configured)


def _provider_regions(document: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    variables = document.get("variables", {})
    for key, provider in document.get("configuration", {}).get("provider_config", {}).items():
        region = provider.get("expressions", {}).get("region", {})
        named = [name.removeprefix("var.") for name in region.get("references", ()) if name.startswith("var.")]
        value = region.get("constant_value") or next((variables.get(name, {}).get("value") for name in named), None)
        if isinstance(value, str) and "module_address" not in provider:
            found[key] = value
    return found
