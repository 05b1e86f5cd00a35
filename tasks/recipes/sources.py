"""What a user's recipe is written in: its module, and what it imports of the same root.

A run is what its recipe's source was, so an edit is another run. What is installed, and Flightpath itself, is not
looked at: versions are pinned elsewhere, and `code_version` holds Flightpath's sources.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.errors import InvalidInput

_OURS: Final = frozenset({"flightpath", "flightpath_operator", "infra", "serving", "tasks", "workflows"})


def sources_hash(module: str) -> str:
    """SHA-256 (hex) over the module and every module of its root (the folder that its first package lies in) that it
    imports, in turn; the order of imports does not matter.

    Raises:
        InvalidInput: the module has no source file.
    """
    first = _file_of(module)
    root = first.parents[module.count(".") + (1 if first.name == "__init__.py" else 0)]
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _beneath(root, name)
        if path is None or name in found or name.partition(".")[0] in _OURS:
            continue
        found[name] = path
        waiting += _imported(path, name, is_package=path.name == "__init__.py")
        waiting += [name.rpartition(".")[0]] if "." in name else []
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _file_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InvalidInput("recipe's module has no source file", got=module, expected="a .py file")
    return Path(spec.origin)


def _beneath(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imported(path: Path, module: str, *, is_package: bool) -> Iterator[str]:
    """Names that may be modules; those that are none have no file."""
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            kept = len(above) - node.level + (1 if is_package else 0)
            base = ".".join([*(above[:kept] if node.level else []), *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
