"""Terraform configurations as text: what a folder declares, and what it refers to, without any provider."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.provider_schemas.conformance import read_hcl

_REFERENCE = re.compile(r"(?<![\w.\"/-])(var|local|module)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?")
_INTERPOLATION = re.compile(r"\$\{([^{}]*)\}")
_LITERAL = re.compile(r'"[^"$]*"')
_META = {"source", "providers", "count", "for_each", "depends_on", "__is_block__"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """One module or environment."""

    path: Path
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    locals: frozenset[str]
    calls: dict[str, dict[str, Any]]
    """Arguments of each module call."""
    references: frozenset[tuple[str, str, str]]
    """("var" | "local" | "module", name, attribute or nothing)."""

    @property
    def required_inputs(self) -> frozenset[str]:
        return frozenset(name for name, body in self.inputs.items() if "default" not in body)


def read_folder(path: Path) -> Folder:
    inputs, outputs, calls = {}, {}, {}
    names: set[str] = set()
    references: set[tuple[str, str, str]] = set()
    for file in sorted(path.glob("*.tf")):
        document = read_hcl(file)
        inputs.update(_by_label(document, "variable"))
        outputs.update(_by_label(document, "output"))
        calls.update(_by_label(document, "module"))
        names.update(name for block in document.get("locals", ()) for name in block if name != "__is_block__")
        references.update(found for text in _expressions(document) for found in _REFERENCE.findall(text))
    return Folder(
        path=path,
        inputs=inputs,
        outputs=outputs,
        locals=frozenset(names),
        calls=calls,
        references=frozenset(references),
    )


def dangling(folder: Folder) -> list[str]:
    """References and arguments that lead nowhere: what `terraform validate` would tell, had it the provider."""
    called = {name: read_folder((folder.path / _source(body)).resolve()) for name, body in folder.calls.items()}
    known = {"var": folder.inputs.keys(), "local": folder.locals, "module": folder.calls.keys()}
    found = [f"{kind}.{name} is not declared" for kind, name, _ in folder.references if name not in known[kind]]
    for kind, name, output in folder.references:
        if kind == "module" and name in called and output and output not in called[name].outputs:
            found.append(f"module.{name} has no output {output}")
    for name, body in folder.calls.items():
        given = body.keys() - _META
        found += [f"module.{name} has no input {argument}" for argument in given - called[name].inputs.keys()]
        found += [f"module.{name} lacks {argument}" for argument in called[name].required_inputs - given]
    return sorted(found)


def _expressions(value: Any) -> Iterator[str]:
    """python-hcl2 writes an expression as ${…} and a text with its quotes; texts may hold expressions."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from () if key == "description" else _expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from _expressions(item)
    elif isinstance(value, str) and value.startswith("${"):
        yield _LITERAL.sub("", value)
    elif isinstance(value, str):
        yield from _INTERPOLATION.findall(value)


def _by_label(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {label: body for block in document.get(kind, ()) for label, body in block.items()}


def _source(body: dict[str, Any]) -> str:
    return str(body["source"]).strip('"')
