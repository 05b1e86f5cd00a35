"""Where samples come from, as stages know it.

A split is a mapping from names to arrays that share their first dimension (the samples), so that images, tokens and
tables travel alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from numpy.typing import NDArray

SPLITS: Final = ("train", "validation", "test")

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
