"""A batch's losses weigh alike however they are cut: micro-batches and workers with more of them count for more."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn import functional

from serving.store import ArtifactStore
from tasks.data.addresses import read_record
from tasks.data.stage import prepare
from tasks.families.classifier import Classifier
from tasks.recipes.family import Loss
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.training.launch import inprocess, torchrun
from tasks.training.stage import Launch, train
from tests.fakes import strangers

REFERENCE = "tests.unit.test_training_weights:partly_labelled"


class PartlyLabelled(Classifier):
    """Only samples of the first class count, so that parts of a batch hold more or fewer."""

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        counted = batch["labels"] == 0
        losses = functional.cross_entropy(self.answers(model, batch), batch["labels"], reduction="none")
        return (losses * counted).sum(), counted.sum()


def partly_labelled() -> Recipe:
    (tokens, mask) = strangers.masked_text().family().signature().inputs
    family = partial(PartlyLabelled, network=strangers.Encoder, inputs=(tokens, mask), classes=strangers.CLASSES)
    return Recipe(name="partly-labelled", data=strangers.Texts, family=family, global_batch=16, epochs=0.5, workers=1)


@pytest.mark.parametrize(("parts", "workers", "launch"), [(4, 1, inprocess.launch), (1, 2, torchrun.launch)])
def test_the_curve_is_that_of_the_whole_batch(tmp_path: Path, parts: int, workers: int, launch: Launch) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())

    def curve(name: str, overrides: str, workers: int, launch: Launch) -> list[float]:
        recipe = get_recipe(REFERENCE, overrides)
        dataset = prepare(recipe, 1, store)
        run = str(tmp_path / name)
        made = train(recipe, dataset, seed=1, workers=workers, store=store, run=run, launch=launch)
        return [entry["loss"] for entry in read_record(made.uri, "curve.json")]

    whole = curve("whole", "", 1, inprocess.launch)
    cut = curve("cut", f'{{"accumulation": {parts}, "workers": {workers}}}', workers, launch)
    np.testing.assert_allclose(cut, whole, rtol=2e-3)
    assert whole[0] != whole[-1]
