"""The tiny recipe on data with one broken sample: training diverges in the step that sees it."""

from dataclasses import dataclass, replace

import numpy as np

from tasks.data.digits import Digits
from tasks.recipes.data_source import LoadedData
from tasks.recipes.recipe import Recipe
from tests.fakes.tiny_recipe import tiny_digits

REFERENCE = "tests.fakes.poisoned_recipe:poisoned"
SAMPLE = 700


@dataclass(frozen=True, kw_only=True, slots=True)
class PoisonedDigits(Digits):
    """Training sample `SAMPLE` is NaN, or has a label that is no class."""

    broken: str = "image"

    def load(self, seed: int) -> LoadedData:
        data = Digits.load(self, seed)
        images, labels = (data.splits["train"][name].copy() for name in ("images", "labels"))
        if self.broken == "image":
            images[SAMPLE] = np.nan
        else:
            labels[SAMPLE] = 99
        return replace(data, splits={**data.splits, "train": {"images": images, "labels": labels}})


def poisoned() -> Recipe:
    return replace(tiny_digits(), data=PoisonedDigits, epochs=1.0, max_failures=2, checkpoint_interval_steps=2)
