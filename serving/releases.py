"""What is released: a model's name, a bundle and the runtime that serves it."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from serving.errors import InvalidInput

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?")
"""Names of models, releases and regions: they become paths, labels and host names."""


def check_name(kind: str, value: str) -> None:
    if not NAME.fullmatch(value) or ".." in value:
        raise InvalidInput(f"{kind} is malformed", got=value, expected="a-z, 0-9, '.' and '-', at most 128 characters")


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSpec:
    """How a bundle is served. Another version or argument is another release."""

    engine: str
    """`onnxruntime`, `vllm`, or a runtime that the topology file names."""
    variant: str
    """The bundle's variant that the engine opens."""
    arguments: list[str] = field(default_factory=list)
    """Extra command-line arguments of the engine."""
    environment: dict[str, str] = field(default_factory=dict)
    """Extra environment of the engine; never secrets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """Model + bundle digest + runtime. `id` names it everywhere."""

    id: str
    model: str
    bundle_digest: str
    store_uri: str
    """The artifact store that the bundle is replicated from."""
    runtime: RuntimeSpec

    def __post_init__(self) -> None:
        check_name("release id", self.id)
        check_name("model name", self.model)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> "Release":
        try:
            return cls(**{**raw, "runtime": RuntimeSpec(**raw["runtime"])})
        except (TypeError, KeyError) as broken:
            raise InvalidInput("release is malformed", got=raw, expected="id, model, bundle_digest, …") from broken
