"""The data stage: a recipe's source becomes three files of named arrays in the store.

A split is a mapping from names to arrays that share their first dimension (the samples), so that
images, tokens and tables travel alike. A dataset folder holds `{train,validation,test}.safetensors`
and `dataset.json`, which names the SHA-256 of each, beside whatever files the source adds (a
tokenizer); the folder is named by the SHA-256 of `dataset.json`. Preparing the same source twice
writes nothing the second time.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from serving.bundle import check_relative_path, hash_file
from serving.errors import InvalidInput, PermanentError
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.addresses import fetch_folder
from tasks.training.recipes import Recipe

SPLITS: Final = ("train", "validation", "test")
DATASET: Final = "dataset.json"
SCHEMA_VERSION: Final = 1

Split = Mapping[str, NDArray[Any]]
"""Arrays by name, shape (samples, ...)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedData:
    """What a source hands over."""

    splits: dict[str, Split]
    """`train`, `validation` and `test`."""
    classes: list[str]
    """Names of the classes in label order; empty where there are none."""
    files: dict[str, bytes] = field(default_factory=dict)
    """More files of the dataset folder by name, for example a tokenizer; the model's family reads them."""


class DataSource(Protocol):
    """Where samples come from. A new data set is one class with these two methods."""

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the raw data and of every setting that shapes the splits; quick, loads nothing."""
        ...

    def load(self, seed: int) -> LoadedData:
        """Read and split. `seed` is the run's; a source whose split is fixed, so that releases compare, ignores it."""
        ...


def data_hash(recipe: Recipe) -> str:
    """SHA-256 (hex) that names the recipe's data before anything is loaded."""
    return recipe.data().fingerprint()


def prepare(recipe: Recipe, seed: int, store: ArtifactStore) -> Dataset:
    """Load, check and store the recipe's data; returns its address. Idempotent by content."""
    data = recipe.data().load(seed)
    _check(data)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        contents = {f"{name}.safetensors": _serialize(data.splits[name]) for name in SPLITS} | data.files
        for name, content in contents.items():
            write_atomically(folder / name, content)
        files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        samples = {name: _samples(data.splits[name]) for name in SPLITS}
        record = canonical_json(
            {"schema_version": SCHEMA_VERSION, "files": files, "samples": samples, "classes": data.classes}
        )
        write_atomically(folder / DATASET, record)
        digest = hashlib.sha256(record).hexdigest()
        uri = store.put_folder(folder, f"datasets/{digest}", marker=DATASET)
    return Dataset(uri=uri, sha256=digest, samples=samples, classes=data.classes)


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


def _serialize(split: Split) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in split.items()})


def _samples(split: Split) -> int:
    return len(next(iter(split.values())))


def _check(data: LoadedData) -> None:
    if set(data.splits) != set(SPLITS):
        raise InvalidInput("data source returned other splits", got=sorted(data.splits), expected=list(SPLITS))
    if reserved := {DATASET, *(f"{name}.safetensors" for name in SPLITS)} & set(data.files):
        raise InvalidInput("data source overwrites files of the dataset", got=sorted(reserved), expected="other names")
    for name in data.files:
        check_relative_path(name)
    for name, split in data.splits.items():
        lengths = {key: len(array) for key, array in split.items()}
        if not lengths or len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise InvalidInput(f"split {name} is not usable", got=lengths, expected="arrays of one length > 0")
