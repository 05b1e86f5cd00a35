"""Makes google.json and azurerm.json: names and nesting of what our modules use, from the archived cdktf packages.

The providers themselves cannot be had offline, but these wheels hold the bindings that were generated from the
providers' own schemas: every argument with its kind, whether it is a block, and whether it must be there. Only facts
are taken (names, kinds, nesting), no text. Run it again when a module uses a new resource type or block:

    python tests/fakes/provider_schemas/extract.py google WHEEL > tests/fakes/provider_schemas/google.json

WHEEL is that of cdktf-cdktf-provider-google 16.12.1 or cdktf-cdktf-provider-azurerm 14.23.1 (`pip download --no-deps`).
"""

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

MODULES = Path(__file__).resolve().parents[3] / "infra"
CLOUDS = {"google": "gcp", "azurerm": "azure"}

_USE = re.compile(r'^\s*(resource|data)\s+"([a-z0-9_]+)"', re.MULTILINE)
_HCL_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_TOP = re.compile(r"synthesizeHclAttributes\(\) \{(.*?)^    \}", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(
    r'^ {8,12}(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),\s*type: "\w+",\s*storageClassType: "(\w+)"',
    re.MULTILINE | re.DOTALL,
)
_NESTED = re.compile(r"(\w+)ToHclTerraform(?:[,)(]|$)")
_INTERFACE = re.compile(r"^export interface (\w+) (?:extends [\w.]+ )?\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"#(\w+) [^}]*\}\s*\*/\s*readonly \w+(\??):")
_CONFIG = re.compile(r"constructor\(scope: Construct, id: string, config\??: (\w+)\)")
_READ = re.compile(r"this\.get\w+Attribute\('(\w+)'\)|new \w+(?:OutputReference|List|Map)\(this, \"(\w+)\"")
_VERSION = re.compile(r"providerVersion: '([\d.]+)'")


def used_types(provider: str) -> list[tuple[str, str]]:
    """("resource" or "data", type) of everything that our .tf files of that cloud name."""
    folders = (MODULES / "modules" / CLOUDS[provider], MODULES / "environments")
    texts = [path.read_text() for folder in folders if folder.is_dir() for path in sorted(folder.rglob("*.tf"))]
    found = {use for text in texts for use in _USE.findall(text) if use[1].startswith(f"{provider}_")}
    return sorted(found)


def extract(provider: str, wheel: Path) -> dict[str, Any]:
    library = read_library(wheel, {folder_of(provider, *use) for use in used_types(provider)})
    version = ""
    entries = {}
    for kind, name in used_types(provider):
        files = library.get(folder_of(provider, kind, name))
        if files is None:
            sys.exit(f"{wheel.name} has no {kind} {name}: the name is wrong, or the package is too old")
        script, types = files
        version = version or _VERSION.findall(script)[0]
        entries[f"{kind} {name}"] = read_entry(script, types)
    return {"provider": provider, "provider_version": version, "source": wheel.name, "entries": entries}


def folder_of(provider: str, kind: str, name: str) -> str:
    short = name.removeprefix(f"{provider}_").replace("_", "-")
    return f"data-{provider}-{short}" if kind == "data" else short


def read_library(wheel: Path, folders: set[str]) -> dict[str, tuple[str, str]]:
    """Scripts and types of the folders, out of the tarball in the wheel; large resources have several files."""
    with zipfile.ZipFile(wheel) as archive:
        (inner,) = (name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        content = archive.read(inner)
    found: dict[str, dict[str, str]] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for member in package:
            _, library, *rest = Path(member.name).parts if member.isfile() else ("", "")
            if library == "lib" and rest and rest[0] in folders and (file := package.extractfile(member)):
                found.setdefault(rest[0], {})["/".join(rest[1:])] = file.read().decode()
    return {folder: (_joined(files, ".js"), _joined(files, ".d.ts")) for folder, files in found.items()}


def _joined(files: dict[str, str], suffix: str) -> str:
    """The resource's own file last: its class is what attributes are read from."""
    names = sorted((name for name in files if name.endswith(suffix)), key=lambda name: (name == f"index{suffix}", name))
    return "\n".join(files[name] for name in names)


def read_entry(script: str, types: str) -> dict[str, Any]:
    functions = {name.lower(): body for name, body in _HCL_FUNCTION.findall(script)}
    required = {name.lower(): required_in(body) for name, body in _INTERFACE.findall(types)}
    tops = _TOP.findall(script)
    (config,) = set(_CONFIG.findall(types))
    entry = read_block(tops[-1], required[config.lower()], functions, required)
    own_class = script[script.rindex("extends cdktf.Terraform") :]
    entry["attributes"] = sorted({name for pair in _READ.findall(own_class) for name in pair if name})
    return entry


def required_in(interface: str) -> set[str]:
    return {name for name, optional in _FIELD.findall(interface) if not optional}


def read_block(body: str, must: set[str], functions: dict[str, str], required: dict[str, set[str]]) -> dict[str, Any]:
    arguments, blocks = {}, {}
    for name, value, is_block, storage in _ATTRIBUTE.findall(body):
        nested = [found.lower() for found in _NESTED.findall(value) if found.lower() in functions]
        if is_block == "true" and nested:
            block = read_block(functions[nested[0]], required.get(nested[0], set()), functions, required)
            blocks[name] = {"required": name in must, "many": "listMapper" in value, **block}
        else:
            arguments[name] = ("required " if name in must else "") + storage
    return {"arguments": arguments, "blocks": blocks}


def keep_used(entry: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Blocks that no file of ours names are noted as there, and no more: the file stays small."""
    entry["blocks"] = {
        name: keep_used(block, names) if name in names or block["required"] else {"unread": True}
        for name, block in entry["blocks"].items()
    }
    return entry


def main() -> None:
    provider, wheel = sys.argv[1], Path(sys.argv[2])
    folder = MODULES / "modules" / CLOUDS[provider]
    names = set(re.findall(r"\w+", " ".join(path.read_text() for path in folder.rglob("*.tf"))))
    schema = extract(provider, wheel)
    schema["entries"] = {name: keep_used(entry, names) for name, entry in schema["entries"].items()}
    json.dump(schema, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
