"""Holds .tf files against provider schemas, where no provider can be had: names, nesting, what must be there.

It sees: unknown resource types, arguments, blocks and attributes of references; a block written as an argument and the
other way round; one that may stand once and stands twice; required ones that lack. It does not see: types and ranges
of values, arguments that exclude each other, ephemeral resources, provider blocks, and what the cloud refuses.
"""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import hcl2

FOLDER: Final = Path(__file__).resolve().parent
META: Final = frozenset({"for_each", "count", "provider", "depends_on", "lifecycle", "provisioner", "connection"})
"""What Terraform itself knows in every resource, and in no nested block."""

_REFERENCE = re.compile(r"(?<![\w.])(data\.)?((?:google|azurerm)_\w+)\.\w+(?:\[(?:[^\[\]]|\[[^\]]*\])*\])?\.(\w+)")

Entry = dict[str, Any]


@functools.cache
def load_schema(provider: str) -> Entry:
    schema: Entry = json.loads((FOLDER / f"{provider}.json").read_text())
    return schema


def breaches(path: Path, schema: Entry) -> list[str]:
    """What is wrong in one file, one line each; empty where nothing is."""
    found = list(_breaches_of_blocks(path, schema))
    return [f"{path.name}: {text}" for text in [*found, *_breaches_of_references(path, schema)]]


def _breaches_of_blocks(path: Path, schema: Entry) -> Iterator[str]:
    document = read_hcl(path)
    for kind in ("resource", "data"):
        for block in document.get(kind, ()):
            for name, bodies in block.items():
                if not name.startswith(f"{schema['provider']}_"):
                    continue
                for label, body in bodies.items():
                    entry = schema["entries"].get(f"{kind} {name}")
                    where = f"{kind} {name}.{label}"
                    own = {name: value for name, value in body.items() if name not in META}
                    yield from [f"{where}: no such type"] if entry is None else check_block(own, entry, where)


def check_block(body: Entry, entry: Entry, where: str) -> Iterator[str]:
    """One resource or nested block against its entry, and what is nested in it."""
    if entry.get("unread"):
        yield f"{where}: the schema file lacks this block: run extract.py again"
        return
    blocks = dict(nested_blocks(body))
    arguments = {name for name in body if name not in blocks and name not in ("dynamic", "__is_block__")}
    yield from _unknown(arguments, entry["arguments"], entry["blocks"], where, "argument")
    yield from _unknown(set(blocks), entry["blocks"], entry["arguments"], where, "block")
    required = {name for name, kind in entry["arguments"].items() if kind.startswith("required ")}
    required |= {name for name, block in entry["blocks"].items() if block.get("required")}
    yield from (f"{where}: {name} must be there" for name in sorted(required - arguments - set(blocks)))
    for name, bodies in blocks.items():
        if len(bodies) > 1 and not entry["blocks"].get(name, {}).get("many", True):
            yield f"{where}: {name} stands {len(bodies)} times, expected once"
        if name in entry["blocks"]:
            for nested in bodies:
                yield from check_block(nested, entry["blocks"][name], f"{where}.{name}")


def nested_blocks(body: Entry) -> Iterator[tuple[str, list[Entry]]]:
    """Plain blocks by name, and the content of dynamic ones."""
    for name, value in body.items():
        if name == "dynamic":
            for dynamic in value:
                for label, inner in dynamic.items():
                    yield label, [inner["content"][0]]
        elif isinstance(value, list) and value and isinstance(value[0], dict) and "__is_block__" in value[0]:
            yield name, value


def _unknown(names: set[str], known: Entry, other: Entry, where: str, kind: str) -> Iterator[str]:
    for name in sorted(names - known.keys()):
        wrong = f"is no {kind}" if name in other else f"no such {kind}"
        yield f"{where}: {name}: {wrong}; there are {', '.join(sorted(known))}"


def _breaches_of_references(path: Path, schema: Entry) -> Iterator[str]:
    for data, name, attribute in _REFERENCE.findall(path.read_text()):
        if not name.startswith(f"{schema['provider']}_"):
            continue
        entry = schema["entries"].get(f"{'data' if data else 'resource'} {name}")
        if entry is None:
            continue  # an ephemeral resource, or one that was told as unknown where it is declared
        known = {*entry["attributes"], *entry["arguments"], *entry["blocks"], "id"}
        if attribute not in known:
            yield f"reference to {name}: no attribute {attribute}; there are {', '.join(sorted(known))}"


def read_hcl(path: Path) -> Entry:
    """The document with the quotes that python-hcl2 keeps around labels and strings taken off labels."""
    return _parse(path.read_text(encoding="utf-8"))


@functools.cache
def _parse(text: str) -> Entry:
    """Cached: python-hcl2 takes a tenth of a second for a file."""
    document: Entry = _plain_keys(hcl2.loads(text))
    return document


def _plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.strip('"'): _plain_keys(item) for key, item in value.items() if key != "__comments__"}
    return [_plain_keys(item) for item in value] if isinstance(value, list) else value
