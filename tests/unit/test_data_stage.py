"""Preparing data: by content, once, checked when it is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.errors import InvalidInput, NotFound, PermanentError
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.dataset import fetch_dataset, read_split
from tasks.data.digits import Digits
from tasks.data.splitting import stratified_split
from tasks.data.stage import prepare
from tasks.recipes.data_source import SPLITS, LoadedData
from tasks.recipes.finding import get_recipe


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


@pytest.fixture
def dataset(store: ArtifactStore) -> Dataset:
    return prepare(get_recipe("resnet-digits"), 1, store)


def test_digits_are_split_without_overlap_and_within_each_class(dataset: Dataset, tmp_path: Path) -> None:
    folder = fetch_dataset(dataset.uri, tmp_path / "data", sha256=dataset.sha256)
    splits = {name: read_split(folder, name) for name in SPLITS}
    assert sum(dataset.samples.values()) == sum(len(split["labels"]) for split in splits.values()) == 1797
    for split in splits.values():
        counts = np.bincount(split["labels"], minlength=10)
        assert counts.min() >= 0.9 * counts.max() - 1
        assert split["images"].dtype == np.float32
        assert 0 <= split["images"].min() <= split["images"].max() <= 1


def test_no_sample_is_in_two_splits() -> None:
    labels = np.arange(1000) % 7
    chosen = stratified_split(labels, seed=1, shares={"test": 0.25, "validation": 0.1})
    assert sorted(np.concatenate(list(chosen.values())).tolist()) == list(range(1000))


def test_preparing_again_gives_the_same_dataset_whatever_the_seed(store: ArtifactStore, dataset: Dataset) -> None:
    assert prepare(get_recipe("resnet-digits"), 99, store).uri == dataset.uri


def test_the_fingerprint_of_data_follows_the_settings_of_the_split() -> None:
    assert Digits().fingerprint() == Digits().fingerprint()
    assert Digits(split_seed=1).fingerprint() != Digits().fingerprint()


@pytest.mark.parametrize("name", ["train.safetensors", "test.safetensors", "dataset.json"])
def test_a_damaged_dataset_is_refused(dataset: Dataset, tmp_path: Path, name: str) -> None:
    path = Path(dataset.uri.removeprefix("file://")) / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    with pytest.raises(PermanentError, match=name):
        fetch_dataset(dataset.uri, tmp_path / "data", sha256=dataset.sha256)


def test_a_missing_dataset_is_named(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="datasets/none"):
        fetch_dataset(store.address("datasets/none"), tmp_path / "data")


class _Uneven:
    def fingerprint(self) -> str:
        return "0" * 64

    def load(self, seed: int) -> LoadedData:
        split = {"a": np.zeros(3), "b": np.zeros(2)}
        return LoadedData(splits={name: split for name in SPLITS}, classes=[])


def test_a_source_with_uneven_arrays_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(InvalidInput, match="train is not usable"):
        prepare(replace(get_recipe("resnet-digits"), data=_Uneven), 1, store)
