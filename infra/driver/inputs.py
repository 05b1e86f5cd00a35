"""What goes into a run: variables, backend settings, and the fingerprint of the configuration that it reads.

A plain variable travels in a private JSON file, exact in type; a Secret in a TF_VAR_ variable of the process; none on
the command line, which every user of the machine can read.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.driver.errors import InvalidVariable
from infra.driver.redaction import Secret

Variables = Mapping[str, Any]

_NAME = re.compile(r"[^\W\d][\w-]*")
_CONFIGURATION = ("*.tf", "*.tf.json", "*.tfvars", "*.tfvars.json", ".terraform.lock.hcl")


def check_names(variables: Variables) -> None:
    for name, value in variables.items():
        if not _NAME.fullmatch(name):
            raise InvalidVariable("a variable's name is wrong", got=name, expected="an identifier: letters, digits, _-")
        plain = value.reveal() if isinstance(value, Secret) else value
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError):
            kind = type(plain).__name__
            raise InvalidVariable(f"variable {name} has no Terraform value", got=kind, expected="JSON") from None


def check_declared(variables: Variables, declared: frozenset[str]) -> None:
    """Terraform ignores an undeclared TF_VAR_ and only warns of one in a file; a typo must not plan defaults."""
    unknown = sorted(variables.keys() - declared)
    if unknown:
        expected = f"one of {', '.join(sorted(declared))}" if declared else "none: it declares no variable"
        raise InvalidVariable(
            "a variable is not declared by the configuration", got=", ".join(unknown), expected=expected
        )


def secret_texts(variables: Variables) -> dict[str, str]:
    """The Secrets as TF_VAR_ takes them: text as it is, anything else as JSON, which Terraform reads as HCL."""
    revealed = {name: value.reveal() for name, value in variables.items() if isinstance(value, Secret)}
    return {name: value if isinstance(value, str) else _as_hcl(value) for name, value in revealed.items()}


def _as_hcl(value: object) -> str:
    # In HCL, unlike in JSON, ${ and %{ start a template.
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


@contextlib.contextmanager
def private_json(values: Mapping[str, Any], suffix: str) -> Iterator[Path | None]:
    """A file of mode 0600 that lives for the block; None where there is nothing to say."""
    if not values:
        yield None
        return
    fd, name = tempfile.mkstemp(prefix="flightpath-", suffix=suffix)
    path = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(values, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


def plain_values(variables: Variables) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if not isinstance(value, Secret)}


def configuration_sha256(working_dir: Path) -> str:
    """Over the root and every local module that init noted. Files read by functions (`file`) are not seen: their
    content is in the plan already."""
    digest = hashlib.sha256()
    for path in _configuration_files(working_dir):
        content = path.read_bytes()
        digest.update(f"{os.path.relpath(path, working_dir)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _configuration_files(working_dir: Path) -> list[Path]:
    folders = {working_dir.resolve(), *_module_folders(working_dir)}
    return sorted({path for folder in folders for glob in _CONFIGURATION for path in folder.glob(glob)})


def _module_folders(working_dir: Path) -> set[Path]:
    manifest = working_dir / ".terraform" / "modules" / "modules.json"
    try:
        modules = json.loads(manifest.read_text(encoding="utf-8"))["Modules"]
    except FileNotFoundError:
        return set()
    return {(working_dir / module["Dir"]).resolve() for module in modules}
