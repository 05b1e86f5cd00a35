"""A recipe to copy: another data set and another kind of model, in one file, with no stage touched.

    make demo ARGS="--recipe examples.recipe:breast_cancer"
    .venv/bin/pyflyte run workflows/release.py release --recipe examples.recipe:breast_cancer

Data: 569 biopsies with 30 measurements each, which scikit-learn ships. Model: a small perceptron.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.bundle import TensorSpec
from serving.files import canonical_json
from tasks.data.splitting import stratified_split
from tasks.recipes.data_source import LoadedData, Split
from tasks.recipes.recipe import OptimizerConfig, Recipe

if TYPE_CHECKING:
    from torch import nn

    from tasks.families.classifier import Classifier

FEATURES = 30
CLASSES = 2


def breast_cancer() -> Recipe:
    """The recipe: everything not named here keeps its default."""
    return Recipe(
        name="breast-cancer",
        data=BreastCancer,
        family=classifier,
        optimizer=OptimizerConfig(peak_learning_rate=1e-2),
        global_batch=32,
        epochs=20,
        checkpoint_interval_steps=100,
    )


def classifier() -> "Classifier":
    """A ready family; a kind of model that none of them fits implements `tasks.recipes.family.Family` itself."""
    from tasks.families.classifier import Classifier

    features = TensorSpec(name="features", datatype="FP32", shape=[-1, FEATURES])
    return Classifier(network=perceptron, inputs=(features,), classes=CLASSES)


def perceptron() -> "nn.Module":
    from torch import nn

    hidden = 64
    return nn.Sequential(
        *(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()), nn.Linear(hidden, CLASSES)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class BreastCancer:
    """The data source: fingerprint quickly, load and split on demand."""

    split_seed: int = 1

    def fingerprint(self) -> str:
        import sklearn

        settings = {"source": "sklearn-breast-cancer", "sklearn": sklearn.__version__, "split_seed": self.split_seed}
        return hashlib.sha256(canonical_json(settings)).hexdigest()

    def load(self, seed: int) -> LoadedData:
        from sklearn.datasets import load_breast_cancer

        raw = load_breast_cancer()
        labels = raw.target.astype(np.int64)
        chosen = stratified_split(labels, seed=self.split_seed, shares={"test": 0.25, "validation": 0.1})
        train = raw.data[chosen["train"]]
        features = ((raw.data - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)
        splits: dict[str, Split] = {
            name: {"features": features[indices], "labels": labels[indices]} for name, indices in chosen.items()
        }
        return LoadedData(splits=splits, classes=[str(name) for name in raw.target_names])
