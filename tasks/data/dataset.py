"""A dataset folder: `{train,validation,test}.safetensors` and `dataset.json`, which names the SHA-256 of each.

Beside them lies whatever the source added (a tokenizer); the folder is named by the SHA-256 of `dataset.json`.
"""

import json
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from safetensors.numpy import load_file

from serving.bundle import hash_file
from serving.errors import InvalidInput, PermanentError
from tasks.data.addresses import fetch_folder
from tasks.recipes.data_source import SPLITS

DATASET: Final = "dataset.json"
SCHEMA_VERSION: Final = 1


def fetch_dataset(uri: str, target: Path, *, sha256: str | None = None) -> Path:
    """Copy a dataset folder to `target` and check every hash; a `target` that already holds it is kept.

    Raises:
        PermanentError: the content differs from what the address or `dataset.json` names.
    """
    expected = sha256 or uri.rstrip("/").rpartition("/")[2]
    if not (target / DATASET).is_file() or hash_file(target / DATASET) != expected:
        fetch_folder(uri, target, marker=DATASET)
    if (found := hash_file(target / DATASET)) != expected:
        raise PermanentError("dataset.json has a wrong SHA-256", got=found, expected=expected)
    for name, digest in json.loads((target / DATASET).read_bytes())["files"].items():
        if (found := hash_file(target / name)) != digest:
            raise PermanentError(f"dataset file {name} has a wrong SHA-256", got=found, expected=digest)
    return target


def read_split(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one split of a fetched dataset."""
    if name not in SPLITS:
        raise InvalidInput("unknown split", got=name, expected=" | ".join(SPLITS))
    return load_file(folder / f"{name}.safetensors")
