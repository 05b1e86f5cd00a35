"""The data stage: a recipe's source becomes three files of named arrays in the store.

The dataset folder (`dataset.py`) is named by its content: preparing the same source twice writes nothing the second
time.
"""

import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from serving.bundle import check_relative_path
from serving.errors import InvalidInput
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.dataset import DATASET, SCHEMA_VERSION
from tasks.recipes.data_source import SPLITS, LoadedData, Split
from tasks.recipes.recipe import Recipe


def prepare(recipe: Recipe, seed: int, store: ArtifactStore) -> Dataset:
    """Load, check and store the recipe's data; returns its address. Idempotent by content."""
    began = time.monotonic()
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
    seconds = time.monotonic() - began
    return Dataset(uri=uri, sha256=digest, samples=samples, classes=data.classes, seconds=seconds)


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
