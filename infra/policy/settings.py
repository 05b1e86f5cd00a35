"""What a region was granted: its policy file, beside its environment."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.policy.errors import InvalidPolicy


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CostCeiling(_Closed):
    """USD a month."""

    least: float = Field(ge=0)
    """With every group at its smallest: what is paid when nothing runs."""
    most: float = Field(ge=0)
    """With every group at its largest."""


class GpuQuota(_Closed):
    """GPUs by model, as the cloud grants them."""

    on_demand: dict[str, int] = Field(default_factory=dict)
    spot: dict[str, int] = Field(default_factory=dict)


class Policy(_Closed):
    cost_ceiling_usd: CostCeiling
    gpu_quota: GpuQuota
    required_tags: tuple[str, ...] = ("team", "environment", "cost-center")
    public_ports: frozenset[int] = frozenset()
    """Ports that the internet may reach: those of the gateways' load balancers."""
    stateful_types: frozenset[str] = frozenset()
    """Types of resource that are kept beside those that the rule knows."""


def load_policy(path: Path) -> Policy:
    document = read_yaml(path)
    version = document.pop("schema_version", None)
    if version != 1:
        raise InvalidPolicy(f"schema_version of {path} is not known", got=version, expected=1)
    try:
        return Policy.model_validate(document)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidPolicy(f"{place} of {path} is wrong", got=first["input"], expected=first["msg"]) from wrong


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as broken:
        raise InvalidPolicy(f"{path} cannot be read", got=broken, expected="a YAML file") from broken
    if not isinstance(document, dict):
        raise InvalidPolicy(f"{path} is wrong", got=document, expected="a mapping")
    return document
