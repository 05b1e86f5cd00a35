"""Any regressor: a network, the inputs that it takes, and how far off an answer may be.

The data source brings one array per input, by its name, and `targets` (samples,) or (samples, values) float32.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from serving.bundle import TensorSpec
from serving.errors import InvalidInput
from tasks.artifacts import Figure
from tasks.families.classifier import named
from tasks.families.regression import judge_regression, mean_of_training, regression_golden
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement, Loss, Signature


@dataclass(frozen=True, kw_only=True, slots=True)
class Regressor:
    """Squared error in units of `scale`."""

    network: Callable[[], nn.Module]
    """Makes the network; its `forward` takes the inputs in their order and answers (samples, values)."""
    inputs: tuple[TensorSpec, ...]
    """Shapes with -1 for the batch."""
    tolerance: float
    """An answer within it of its target is right, in the target's unit: what gates compare versions by."""
    values: int = 1
    scale: float = 1.0
    """Of the targets: losses are of targets divided by it, so that a house's price trains like a share."""

    def __post_init__(self) -> None:
        for name in ("tolerance", "values", "scale"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidInput(f"{name} of the regressor", got=getattr(self, name), expected="> 0")

    @property
    def kind(self) -> str:
        return "regressor"

    @property
    def golden_kind(self) -> str:
        return "regression"

    def describe(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("tolerance", "values", "scale")}
        return {
            "kind": self.kind,
            "network": named(self.network),
            "inputs": [asdict(spec) for spec in self.inputs],
            **settings,
        }

    def signature(self) -> Signature:
        values = TensorSpec(name="values", datatype="FP32", shape=[-1, self.values])
        return Signature(inputs=list(self.inputs), outputs=[values])

    def build_model(self) -> nn.Module:
        return self.network()

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        answers, targets = self.answers(model, batch).float(), batch["targets"].float()
        errors = (answers.flatten(1) - targets.reshape(len(targets), -1)) / self.scale
        return functional.mse_loss(errors, errors.new_zeros(()).expand_as(errors), reduction="sum"), errors.numel()

    def answers(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        values_BV: Tensor = model(*(batch[spec.name] for spec in self.inputs))
        return values_BV

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        return judge_regression(answers, split["targets"], tolerance=self.tolerance)

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        return mean_of_training(train["targets"], split["targets"], tolerance=self.tolerance)

    def golden(self, held_out: HeldOut) -> Golden:
        inputs = {spec.name: held_out.test[spec.name] for spec in self.inputs}
        return regression_golden(held_out, inputs=inputs, targets=held_out.test["targets"], tolerance=self.tolerance)
