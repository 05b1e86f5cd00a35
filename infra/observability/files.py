"""The files of this folder: where they are, what they hold, and how generated ones are written."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent
NAMESPACE: Final = "flightpath:"
"""Every recorded series starts so; the global Prometheus federates by it."""
_GENERATED: Final = "# Generated: python -m infra.observability write. Do not edit.\n"


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_yaml(self) -> dict[str, Any]:
        labels = {"labels": dict(self.labels)} if self.labels else {}
        return {"record": self.record, "expr": self.expr, **labels}


def group(name: str, rules: Sequence[Rule]) -> dict[str, Any]:
    return {"name": name, "rules": [rule.to_yaml() for rule in rules]}


def render(document: Mapping[str, Any]) -> str:
    """A generated YAML file, the same for the same input."""
    text: str = yaml.safe_dump(dict(document), sort_keys=False, width=120, allow_unicode=True)
    return _GENERATED + text


def rule_files(*folders: str) -> list[Path]:
    """All rule files below these folders, such as `rules/region`."""
    return sorted(path for folder in folders for path in (FOLDER / folder).glob("*.yml"))


def read_rules(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Every rule of the files, recording rules and alerts alike."""
    for path in paths:
        for found in yaml.safe_load(path.read_text())["groups"]:
            yield from found["rules"]
