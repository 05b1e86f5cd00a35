"""Which held-out samples become the golden set, and how its file holds them (`serving/regions/golden/inputs.py`)."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.recipes.data_source import Split
from tasks.recipes.family import HeldOut

_SEED: Final = 5
"""Fixed: the golden sets of two versions hold the same samples of the same data."""


def golden_arrays(held_out: HeldOut, inputs: Split, truth: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Samples drawn from all that are held out, since the first rows of a file are often of one kind.

    Args:
        inputs: by the names of the model's inputs, (samples, ...).
        truth: what is known of the samples, (samples, ...).
    """
    available = len(held_out.answers)
    drawn = np.random.Generator(np.random.PCG64(_SEED)).permutation(available)[: held_out.samples]
    chosen = np.sort(drawn)
    arrays = {f"input.{name}": array[chosen] for name, array in inputs.items()}
    arrays |= {name: array[chosen] for name, array in truth.items()}
    arrays["reference"] = held_out.answers[chosen].astype(np.float32)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
