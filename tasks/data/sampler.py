"""Which samples each step sees: one endless order, cut into global batches, shared out among ranks.

The order is the concatenation of one permutation per epoch, so within an epoch every sample occurs
once; a batch may straddle two epochs, and no sample is dropped. It depends on the seed alone: any
world size that divides the global batch sees the same batches, and resuming at a step is arithmetic.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A pure function from a step to the indices of its samples."""

    samples: int
    global_batch: int
    """Samples per optimizer step over all ranks; constant whatever the world size."""
    seed: int

    def __post_init__(self) -> None:
        if self.samples < 1 or self.global_batch < 1:
            raise InvalidInput(
                "sampler needs samples and a batch", got=(self.samples, self.global_batch), expected="both >= 1"
            )

    def global_indices(self, step: int) -> NDArray[np.int64]:
        """Indices (global_batch,) of the samples of `step`, counted from 0."""
        first = step * self.global_batch
        positions = np.arange(first, first + self.global_batch)
        epochs, offsets = np.divmod(positions, self.samples)
        return np.concatenate([self._permutation(epoch)[offsets[epochs == epoch]] for epoch in np.unique(epochs)])

    def rank_indices(self, step: int, *, rank: int, world_size: int) -> NDArray[np.int64]:
        """This rank's share (global_batch / world_size,); the shares in rank order are the global batch."""
        if self.global_batch % world_size:
            raise InvalidInput(
                "world size must divide the global batch",
                got=world_size,
                expected=f"a divisor of {self.global_batch}",
            )
        share = self.global_batch // world_size
        return self.global_indices(step)[rank * share : (rank + 1) * share]

    def state(self, step: int) -> dict[str, int]:
        """What a checkpoint keeps: enough to refuse a resume over other data or another order."""
        return {"samples": self.samples, "global_batch": self.global_batch, "seed": self.seed, "next_step": step}

    def check_state(self, state: dict[str, Any], *, step: int) -> None:
        """Raise InvalidInput unless `state` was saved by this very order at `step`."""
        if state != self.state(step):
            raise InvalidInput("checkpoint was made with another sample order", got=state, expected=self.state(step))

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return _permutation(self.seed, self.samples, int(epoch))


@lru_cache(maxsize=2)
def _permutation(seed: int, samples: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch, kept while its steps ask for it (of ten million samples it takes 0.2 s); read-only."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)
    order.flags.writeable = False
    return order


def steps_for(samples: int, *, global_batch: int, epochs: float) -> int:
    """Optimizer steps that show each sample `epochs` times (rounded up to a whole batch)."""
    return max(1, -(-round(samples * epochs) // global_batch))
