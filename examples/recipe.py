"""A recipe to copy: another data set and another kind of model, in one file, with no stage touched.

    make demo ARGS="--recipe examples.recipe:breast_cancer"
    .venv/bin/pyflyte run workflows/release.py release --recipe examples.recipe:breast_cancer

Data: 569 biopsies with 30 measurements each, which scikit-learn ships. Model: a small perceptron.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bundle import TensorSpec
from serving.files import canonical_json
from tasks.artifacts import Figure
from tasks.data.splitting import stratified_split
from tasks.families.classification import classification_golden, judge_classification, majority_class
from tasks.recipes.data_source import LoadedData, Split
from tasks.recipes.family import Golden, HeldOut, Judgement, Signature
from tasks.recipes.recipe import OptimizerConfig, Recipe

FEATURES = 30
CLASSES = 2


def breast_cancer() -> Recipe:
    """The recipe: everything not named here keeps its default."""
    return Recipe(
        name="breast-cancer",
        data=BreastCancer,
        family=_family,
        optimizer=OptimizerConfig(peak_learning_rate=1e-2),
        global_batch=32,
        epochs=20,
        checkpoint_interval_steps=100,
    )


def _family() -> "TabularClassifier":
    return TabularClassifier()


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularClassifier:
    """The family: how to build the model, what its loss is, how to judge its outputs."""

    hidden: int = 64

    @property
    def kind(self) -> str:
        return "tabular-classifier"

    @property
    def golden_kind(self) -> str:
        return "classification"

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "hidden": self.hidden}

    def signature(self) -> Signature:
        return Signature(
            inputs=[TensorSpec(name="features", datatype="FP32", shape=[-1, FEATURES])],
            outputs=[TensorSpec(name="logits", datatype="FP32", shape=[-1, CLASSES])],
        )

    def build_model(self) -> Any:
        from torch import nn

        return nn.Sequential(
            nn.Linear(FEATURES, self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.hidden), nn.ReLU(),
            nn.Linear(self.hidden, CLASSES),
        )  # fmt: skip

    def loss(self, model: Any, batch: Mapping[str, Any]) -> Any:
        from torch.nn import functional

        return functional.cross_entropy(model(batch["features"]), batch["labels"])

    def answers(self, model: Any, batch: Mapping[str, Any]) -> Any:
        return model(batch["features"])

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        return judge_classification(answers, split["labels"], classes=CLASSES)

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        return majority_class(train["labels"], split["labels"])

    def golden(self, held_out: HeldOut) -> Golden:
        test = held_out.test
        return classification_golden(held_out, inputs=test["features"], labels=test["labels"], classes=CLASSES)
