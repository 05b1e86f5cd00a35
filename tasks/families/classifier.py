"""Any classifier: a network, the inputs that it takes, and how many classes there are.

    def _family() -> Family:
        return Classifier(network=Encoder, inputs=(tokens, mask), classes=3)

The data source brings one array per input, by its name, and `labels` (samples,) int64.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from serving.bundle import TensorSpec
from tasks.artifacts import Figure
from tasks.families.classification import classification_golden, judge_classification, majority_class
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement, Loss, Signature


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """Cross-entropy over scores (samples, classes)."""

    network: Callable[[], nn.Module]
    """Makes the network; its `forward` takes the inputs in their order."""
    inputs: tuple[TensorSpec, ...]
    """Shapes with -1 for the batch."""
    classes: int
    label_smoothing: float = 0.0

    @property
    def kind(self) -> str:
        return "classifier"

    @property
    def golden_kind(self) -> str:
        return "classification"

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "network": named(self.network),
            "inputs": [asdict(spec) for spec in self.inputs],
            "classes": self.classes,
            "label_smoothing": self.label_smoothing,
        }

    def signature(self) -> Signature:
        scores = TensorSpec(name="scores", datatype="FP32", shape=[-1, self.classes])
        return Signature(inputs=list(self.inputs), outputs=[scores])

    def build_model(self) -> nn.Module:
        return self.network()

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        scores, labels = self.answers(model, batch).float(), batch["labels"]
        total = functional.cross_entropy(scores, labels, label_smoothing=self.label_smoothing, reduction="sum")
        return total, len(labels)

    def answers(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        scores_BK: Tensor = model(*(batch[spec.name] for spec in self.inputs))
        return scores_BK

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        return judge_classification(answers, split["labels"], classes=self.classes)

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        return majority_class(train["labels"], split["labels"])

    def golden(self, held_out: HeldOut) -> Golden:
        inputs = {spec.name: held_out.test[spec.name] for spec in self.inputs}
        return classification_golden(held_out, inputs=inputs, labels=held_out.test["labels"], classes=self.classes)


def named(network: Callable[[], nn.Module]) -> str:
    """What a network is called where it is written; its source is in the recipe's own hash."""
    return f"{getattr(network, '__module__', '')}.{getattr(network, '__qualname__', repr(network))}"
