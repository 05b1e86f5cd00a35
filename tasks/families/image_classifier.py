"""The image classifier family: a ResNet that reads `images` (0 to 1) and `labels`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from serving.bundle import TensorSpec
from tasks.artifacts import Figure
from tasks.families.classification import classification_golden, judge_classification, majority_class
from tasks.families.resnet import ResNet, ResNetConfig, describe
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement, Loss, Signature


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageClassifier:
    """Cross-entropy with label smoothing on randomly shifted images."""

    model: ResNetConfig = field(default_factory=ResNetConfig)
    shift_pixels: int = 1
    """Largest random shift in training; 0 switches it off. Digits are not centred to the pixel."""
    label_smoothing: float = 0.05
    """Keeps logits small, which also keeps INT8 ranges tight."""

    @property
    def kind(self) -> str:
        return "image-classifier"

    @property
    def golden_kind(self) -> str:
        return "classification"

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "model": describe(self.model),
            "shift_pixels": self.shift_pixels,
            "label_smoothing": self.label_smoothing,
        }

    def signature(self) -> Signature:
        size = self.model.size
        return Signature(
            inputs=[TensorSpec(name="images", datatype="FP32", shape=[-1, self.model.channels, size, size])],
            outputs=[TensorSpec(name="logits", datatype="FP32", shape=[-1, self.model.classes])],
        )

    def build_model(self) -> nn.Module:
        return ResNet(self.model)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        logits_BK = model(shift_randomly(batch["images"], self.shift_pixels)).float()
        labels, smoothing = batch["labels"], self.label_smoothing
        return functional.cross_entropy(logits_BK, labels, label_smoothing=smoothing, reduction="sum"), len(labels)

    def answers(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        logits_BK: Tensor = model(batch["images"])
        return logits_BK

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        return judge_classification(answers, split["labels"], classes=self.model.classes)

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        return majority_class(train["labels"], split["labels"])

    def golden(self, held_out: HeldOut) -> Golden:
        test = held_out.test
        return classification_golden(
            held_out, inputs={"images": test["images"]}, labels=test["labels"], classes=self.model.classes
        )


def shift_randomly(x_BCHW: Tensor, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions, filling with zeros."""
    if pixels == 0:
        return x_BCHW
    batch, _, height, width = x_BCHW.shape
    padded = functional.pad(x_BCHW, [pixels] * 4)
    offsets = torch.randint(0, 2 * pixels + 1, (2, batch, 1))
    rows_BH1 = (offsets[0] + torch.arange(height))[:, :, None]
    columns_B1W = (offsets[1] + torch.arange(width))[:, None, :]
    # Indexing beside a slice puts channels last: move them back.
    return padded[torch.arange(batch)[:, None, None], :, rows_BH1, columns_B1W].permute(0, 3, 1, 2).contiguous()
