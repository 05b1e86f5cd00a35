"""Cutting samples into splits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified_split(
    labels: NDArray[np.int64], *, seed: int, shares: dict[str, float], rest: str = "train"
) -> dict[str, NDArray[np.int64]]:
    """Indices per split, every class cut in the same shares, each split in random order.

    Args:
        labels: (samples,) class of each sample.
        shares: share of each named split, 0 to 1; what remains goes to `rest`.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    parts: dict[str, list[Any]] = {name: [] for name in (*shares, rest)}
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        start = 0
        for name, share in shares.items():
            stop = start + round(share * len(members))
            parts[name].append(members[start:stop])
            start = stop
        parts[rest].append(members[start:])
    return {name: generator.permutation(np.concatenate(pieces)) for name, pieces in parts.items()}
