"""What is released: a model's name, a bundle and the runtime that serves it."""

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from serving.errors import InvalidInput

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?")
"""Names of models, releases and regions: they become paths, labels and host names."""
LONGEST_NAME: Final = 128

_MAX_ITEMS = 64
_MAX_LENGTH = 4096
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LOADS_CODE = re.compile(
    r"(LD|DYLD|PYTHON|GLIBC|GCONV|BASH|PERL|NODE|RUBY|FLIGHTPATH)(_.*|[A-Z0-9]*)|"
    r"PATH|HOME|ENV|IFS|SHELL|VIRTUAL_ENV|TMPDIR|SSL_CERT_FILE|SSL_CERT_DIR|.*_PLUGINS?|.*(_|^)PRELOAD(_.*|$)|"
    r"VLLM_ALLOW_INSECURE_SERIALIZATION|TORCHINDUCTOR_.*|TRITON_.*DIR|CC|CXX|(HTTPS?|ALL|NO)_PROXY",
    re.IGNORECASE,
)
"""Variables that decide which code a process runs or whom it speaks to: the region's, not a release's."""


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
    """Extra environment of the engine; never secrets, and no variable that decides which code runs."""

    def __post_init__(self) -> None:
        _check_arguments(self.arguments)
        _check_environment(self.environment)

    @classmethod
    def from_document(cls, raw: dict[str, Any]) -> "RuntimeSpec":
        """As an agent of any age has kept it: what this one does not know is left out."""
        return cls(**{name: value for name, value in raw.items() if name in _RUNTIME})


_RUNTIME: Final = frozenset(entry.name for entry in fields(RuntimeSpec))


def _check_arguments(arguments: object) -> None:
    usable = isinstance(arguments, list) and len(arguments) <= _MAX_ITEMS and all(map(_is_short_text, arguments))
    if not usable:
        expected = f"at most {_MAX_ITEMS} texts of at most {_MAX_LENGTH} characters"
        raise InvalidInput("arguments of the runtime are malformed", got=arguments, expected=expected)


def _check_environment(environment: object) -> None:
    if not isinstance(environment, dict) or len(environment) > _MAX_ITEMS:
        raise InvalidInput(
            "environment of the runtime is malformed", got=environment, expected=f"at most {_MAX_ITEMS} variables"
        )
    for name, value in environment.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or not _is_short_text(value):
            raise InvalidInput(
                "variable of the runtime is malformed",
                got=f"{name}={value}",
                expected=f"NAME and a text of at most {_MAX_LENGTH} characters",
            )
        if _LOADS_CODE.fullmatch(name):
            raise InvalidInput(
                "variable of the runtime is refused", got=name, expected="none that decides which code the server runs"
            )


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_LENGTH and "\0" not in value


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
        """As it is ordered, by a person or a peer. A field that is not known here decides what is served: it is refused
        by its name instead of serving something else."""
        if isinstance(raw, dict) and isinstance(raw.get("runtime"), dict):
            unknown = sorted(set(raw) - _RELEASE) + sorted(f"runtime.{name}" for name in set(raw["runtime"]) - _RUNTIME)
            if unknown:
                expected = f"{', '.join(sorted(_RELEASE))}, or an agent as young as the one that ordered it"
                raise InvalidInput(
                    "release has fields that are not known here", got=", ".join(unknown), expected=expected
                )
        try:
            return cls(**{**raw, "runtime": RuntimeSpec(**raw["runtime"])})
        except (TypeError, KeyError) as broken:
            raise InvalidInput("release is malformed", got=raw, expected="id, model, bundle_digest, …") from broken

    @classmethod
    def from_document(cls, raw: dict[str, Any]) -> "Release":
        """As an agent of any age has kept it: what this one does not know is left out."""
        known = {name: value for name, value in raw.items() if name in _RELEASE}
        return cls(**{**known, "runtime": RuntimeSpec.from_document(raw["runtime"])})


_RELEASE: Final = frozenset(entry.name for entry in fields(Release))
