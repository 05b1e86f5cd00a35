"""Recipes as strangers write them: a text classifier with masks, a regression in the millions, tied weights."""

import hashlib
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from serving.bundle import TensorSpec
from tasks.data.splitting import stratified_split
from tasks.families.classifier import Classifier
from tasks.families.regressor import Regressor
from tasks.recipes.data_source import LoadedData, Split
from tasks.recipes.recipe import OptimizerConfig, Recipe

LENGTH, WORDS, CLASSES = 24, 200, 3
FAST = OptimizerConfig(peak_learning_rate=1e-2)


def masked_text() -> Recipe:
    tokens, mask = (TensorSpec(name=name, datatype="INT64", shape=[-1, LENGTH]) for name in ("tokens", "mask"))
    family = partial(Classifier, network=Encoder, inputs=(tokens, mask), classes=CLASSES)
    return Recipe(name="masked-text", data=Texts, family=family, global_batch=64, epochs=4, optimizer=FAST)


def tied_text() -> Recipe:
    tokens = TensorSpec(name="tokens", datatype="INT64", shape=[-1, LENGTH])
    family = partial(Classifier, network=Tied, inputs=(tokens,), classes=CLASSES)
    return Recipe(name="tied-text", data=Texts, family=family, global_batch=64, epochs=4, optimizer=FAST)


def houses() -> Recipe:
    """Prices in the millions, one worker, a batch that two workers could not share."""
    sizes = TensorSpec(name="sizes", datatype="FP32", shape=[-1, 10])
    family = partial(Regressor, network=prices, inputs=(sizes,), tolerance=1e6, scale=1e6)
    return Recipe(name="houses", data=Houses, family=family, global_batch=25, workers=1, epochs=20, optimizer=FAST)


class Encoder(nn.Module):
    """Words and which of them count."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(WORDS, 16), nn.Linear(16, CLASSES)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        counted_BT1 = mask[..., None].float()
        return self.head((self.embed(tokens) * counted_BT1).sum(1) / counted_BT1.sum(1))


class Tied(nn.Module):
    """Its second layer is its first, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.back = nn.Embedding(WORDS, 16), nn.Linear(16, WORDS, bias=False)
        self.back.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        words_BV = self.back(self.embed(tokens).mean(1))
        return words_BV[:, 1 : CLASSES + 1]


def prices() -> nn.Module:
    class Prices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

        def forward(self, sizes: Tensor) -> Tensor:
            return self.layers(sizes) * 1e6

    return Prices()


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The class is the marker that occurs three times; texts are padded to one length."""

    def fingerprint(self) -> str:
        return hashlib.sha256(b"strangers' texts").hexdigest()

    def load(self, seed: int) -> LoadedData:
        generator, samples = np.random.default_rng(0), 1200
        labels = generator.integers(0, CLASSES, samples)
        tokens = generator.integers(10, WORDS, (samples, LENGTH))
        lengths = generator.integers(6, LENGTH + 1, samples)
        for row, length in enumerate(lengths):
            tokens[row, generator.choice(length, 3, replace=False)] = labels[row] + 1
            tokens[row, length:] = 0
        arrays = {"tokens": tokens, "mask": (tokens != 0).astype(np.int64), "labels": labels}
        chosen = stratified_split(labels, seed=1, shares={"test": 0.25, "validation": 0.1})
        splits: dict[str, Split] = {
            name: {key: array[indices] for key, array in arrays.items()} for name, indices in chosen.items()
        }
        return LoadedData(splits=splits, classes=["first", "second", "third"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Houses:
    def fingerprint(self) -> str:
        return hashlib.sha256(b"strangers' houses").hexdigest()

    def load(self, seed: int) -> LoadedData:
        generator = torch.Generator().manual_seed(0)
        sizes = torch.randn(800, 10, generator=generator)
        targets = 1e6 * (sizes @ torch.arange(1.0, 11.0) / 3 + 0.2 * torch.randn(800, generator=generator))
        arrays = {"sizes": sizes.numpy(), "targets": targets.numpy().astype(np.float32)}
        parts = {"train": slice(0, 500), "validation": slice(500, 600), "test": slice(600, 800)}
        splits: dict[str, Split] = {
            name: {key: array[part] for key, array in arrays.items()} for name, part in parts.items()
        }
        return LoadedData(splits=splits, classes=[])
