"""Rule mandatory-tags: whatever can carry tags says who runs it, where, and who pays."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from infra.planned import PlannedResource, PlannedWorld
from infra.policy.findings import Breach

RULE: Final = "mandatory-tags"

_ATTRIBUTES: Final = {
    "aws": ("tags_all", "tags"),
    "google": ("effective_labels", "labels", "resource_labels", "settings.user_labels", "node_config.resource_labels"),
    "azurerm": ("tags",),
}
"""Where each provider keeps them, the ones with the provider's defaults in them first."""
_SETTINGS_OF_OTHERS: Final = frozenset({"azurerm_key_vault_key", "azurerm_key_vault_secret"})
"""Not billed, and a part of what is tagged."""


def untagged(world: PlannedWorld, required: tuple[str, ...]) -> Iterator[Breach]:
    for resource in world.staying:
        tags = _tags(resource)
        if tags is None or resource.type in _SETTINGS_OF_OTHERS:
            continue
        missing = [name for name in required if not tags.get(name)]
        if missing:
            got = f"without {', '.join(missing)}"
            yield Breach(resource=resource.address, rule=RULE, got=got, expected=", ".join(required))


def _tags(resource: PlannedResource) -> Mapping[str, Any] | None:
    """None for a type that takes none."""
    for path in _ATTRIBUTES.get(resource.type.partition("_")[0], ()):
        first = path.partition(".")[0]
        if first in resource.values or resource.unknown.get(first) is True:
            found = resource.one(path)
            if isinstance(found, Mapping):
                return found
            if "." not in path and path not in ("tags_all", "effective_labels"):
                return {}
    return None
