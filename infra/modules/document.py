"""Writes the tables of each module's README from its .tf files, so that they say what the module says.

    python -m infra.modules.document            # writes them
    python -m infra.modules.document --check    # exits 1 where one is not current

What stands above the marker is written by people; example, inputs, outputs and resources below it are not. The example
is the runnable one of `examples/basic`. A variable or output without a description is an error.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import hcl2

from serving.errors import InvalidInput

MODULES: Final = Path(__file__).resolve().parent
BEGIN: Final = "<!-- written by python -m infra.modules.document: edit the .tf files instead -->"
_OPTIONS: Final = hcl2.SerializationOptions(strip_string_quotes=True, explicit_blocks=False, with_comments=False)


class UndocumentedModule(InvalidInput):
    code = "undocumented_module"


def read_blocks(folder: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each `variable` or `output` of the module as name and body, in the order of the files."""
    for path in sorted(folder.glob("*.tf")):
        for block in _parse(path).get(kind, ()):
            yield from block.items()


def resources_of(folder: Path) -> list[str]:
    """Addresses inside the module."""
    found = []
    for path in sorted(folder.glob("*.tf")):
        for block in _parse(path).get("resource", ()):
            found += [f"{kind}.{name}" for kind, named in block.items() for name in named]
    return sorted(found)


def submodules_of(folder: Path) -> list[str]:
    return [f"{name} ({body['source']})" for name, body in read_blocks(folder, "module")]


def tables(folder: Path) -> str:
    """All that is generated, ending with a newline."""
    parts = [BEGIN, _example(folder), _inputs(folder), _outputs(folder), _makes(folder)]
    return "\n\n".join(part for part in parts if part) + "\n"


def document(folder: Path) -> str:
    """The whole README: what people wrote, then the tables."""
    readme = folder / "README.md"
    written = readme.read_text(encoding="utf-8") if readme.exists() else f"# {folder.parent.name}/{folder.name}\n"
    return f"{written.partition(BEGIN)[0].rstrip()}\n\n{tables(folder)}"


def module_folders(root: Path = MODULES) -> list[Path]:
    return sorted({path.parent for path in root.glob("*/*/variables.tf")})


def _parse(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8") as file:
        parsed: dict[str, Any] = hcl2.load(file, serialization_options=_OPTIONS)
    return parsed


def _example(folder: Path) -> str:
    path = folder / "examples" / "basic" / "main.tf"
    return f"## Example\n\n```hcl\n{path.read_text(encoding='utf-8').strip()}\n```" if path.exists() else ""


def _inputs(folder: Path) -> str:
    rows = [
        (f"`{name}`", _described(folder, name, body), f"`{_type(body)}`", _default(body))
        for name, body in read_blocks(folder, "variable")
    ]
    return _table("Inputs", ("name", "what", "type", "default"), rows)


def _outputs(folder: Path) -> str:
    rows = [(f"`{name}`", _described(folder, name, body)) for name, body in read_blocks(folder, "output")]
    return _table("Outputs", ("name", "what"), rows)


def _makes(folder: Path) -> str:
    made = [f"`{name}`" for name in (*resources_of(folder), *submodules_of(folder))]
    return f"## What it makes\n\n{', '.join(made)}" if made else ""


def _described(folder: Path, name: str, body: dict[str, Any]) -> str:
    description = str(body.get("description", "")).strip()
    if not description:
        raise UndocumentedModule(f"{name} of {folder} has no description", got="none", expected="one sentence")
    return description


def _type(body: dict[str, Any]) -> str:
    text = str(body.get("type", "any"))
    return text.removeprefix("${").removesuffix("}") if text.startswith("${") else text


def _default(body: dict[str, Any]) -> str:
    return f"`{json.dumps(body['default'])}`" if "default" in body else "required"


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    drawn = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {title}\n\n{drawn}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.modules.document", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a README is not current")
    parser.add_argument("folders", nargs="*", type=Path, help="modules, by default all")
    chosen = parser.parse_args(arguments)
    stale = []
    for folder in chosen.folders or module_folders():
        readme, text = folder / "README.md", document(folder)
        if readme.exists() and readme.read_text(encoding="utf-8") == text:
            continue
        stale.append(readme)
        if not chosen.check:
            readme.write_text(text, encoding="utf-8")
    for readme in stale:
        print(f"{'not current' if chosen.check else 'written'}: {readme}")
    return 1 if stale and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
