"""What the stages must know of a kind of model, and all that they know.

Batches and splits are arrays by name, so a family decides which of them it reads: an image
classifier reads `images` and `labels`, a language model reads `tokens`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.bundle import TensorSpec
from tasks.artifacts import Figure
from tasks.recipes.data_source import Split

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Inputs and outputs of the exported model. Input names are names of arrays in a split."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """How good a model's outputs are."""

    accuracy: float
    """0 to 1, higher is better: what gates compare (top-1 for classifiers, next-token for language models)."""
    interval: tuple[float, float]
    """95 % confidence interval of `accuracy`."""
    figures: list[Figure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    """JSON for the plots, for example the confusion matrix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """What evaluation hands to a family for its golden set."""

    model: "torch.nn.Module"
    """The FP32 reference, in evaluation mode on the CPU."""
    test: Split
    answers: NDArray[np.float32]
    """The model's answers for every sample of `test`."""
    samples: int
    """How many samples the recipe wants."""
    folder: Path
    """The fetched dataset, with whatever files its source added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """The golden set: one file, as regions of `Family.golden_kind` read it."""

    file: str
    content: bytes
    samples: int
    accuracy: float
    """Of the FP32 reference on these samples, 0 to 1."""
    figures: list[Figure] = field(default_factory=list)


Loss = tuple["torch.Tensor", "torch.Tensor | int"]
"""Sum, and count."""


class Family(Protocol):
    """A kind of model. Implementations are stateless; randomness comes from torch's global generator."""

    @property
    def kind(self) -> str:
        """Name of the family in the bundle's manifest, for example `image-classifier`."""
        ...

    @property
    def golden_kind(self) -> str:
        """How regions read the golden set (`GoldenSet.kind`)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain JSON of every setting that shapes the model; part of the recipe's fingerprint."""
        ...

    def signature(self) -> Signature:
        """Inputs and outputs for the manifest; both empty where the runtime's own API defines them."""
        ...

    def build_model(self) -> "torch.nn.Module":
        """A fresh model whose weights come from torch's generator."""
        ...

    def loss(self, model: "torch.nn.Module", batch: "Mapping[str, torch.Tensor]") -> "Loss":
        """Scalar sum of the batch's losses, and how many they are (samples, or tokens that are not padding): workers
        whose batches hold more of them weigh more. Augmentation included."""
        ...

    def answers(self, model: "torch.nn.Module", batch: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """What `judge` needs of each sample, (samples, ...): logits, or what became of them. No gradient is kept."""
        ...

    def judge(self, answers: NDArray[np.float32], split: Split) -> Judgement:
        """Judge the answers for every sample of `split`, whichever runtime computed them."""
        ...

    def baselines(self, train: Split, split: Split) -> list[Figure]:
        """What the simplest models reach on `split` after seeing `train`: what a trained one must beat."""
        ...

    def golden(self, held_out: HeldOut) -> Golden:
        """The golden set, from held-out samples and the FP32 model's answers."""
        ...
