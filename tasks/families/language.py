"""Judging language models: perplexity, bits per byte and next-token accuracy, beside n-gram baselines.

Perplexity depends on the tokenizer; bits per byte compare across tokenizers. Intervals come from a
bootstrap over whole files with a fixed seed: tokens of one file depend on each other.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidInput
from tasks.artifacts import Figure
from tasks.recipes.data_source import Split
from tasks.recipes.family import Judgement

_RESAMPLES: Final = 1000
_BOOTSTRAP_SEED: Final = 11
"""Fixed, so that judging the same answers twice gives the same interval."""
_PERCENTILES: Final = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Totals:
    """Sums, of the whole split or of each resample: scalars or (resamples,)."""

    nats: Any
    hits: Any
    tokens: Any
    bytes: Any

    @property
    def accuracy(self) -> Any:
        return self.hits / self.tokens

    @property
    def perplexity(self) -> Any:
        return np.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> Any:
        return self.nats / math.log(2) / self.bytes


def judge_tokens(answers: NDArray[np.float32], split: Split) -> Judgement:
    """Figures of a language model.

    Args:
        answers: (samples, context, 2): log-probability (nats) of each token, and 1 where it was ranked first.
        split: `bytes` (samples,), the text that each sample stands for, and `files` (samples,).
    """
    if answers.ndim != 3 or answers.shape[2] != 2 or len(answers) != len(split["bytes"]):
        raise InvalidInput(
            "answers have a wrong shape", got=answers.shape, expected=f"({len(split['bytes'])}, context, 2)"
        )
    per_sample = np.stack(
        [
            -answers[..., 0].sum(axis=1, dtype=np.float64),
            answers[..., 1].sum(axis=1, dtype=np.float64),
            np.full(len(answers), answers.shape[1], dtype=np.float64),
            split["bytes"].astype(np.float64),
        ],
        axis=1,
    )
    whole = _totals(per_sample.sum(axis=0))
    resampled = _totals(_resample(_sum_by_file(per_sample, split["files"])))
    return Judgement(
        accuracy=float(whole.accuracy),
        interval=_interval(resampled.accuracy),
        figures=[
            *_with_interval("perplexity", whole.perplexity, resampled.perplexity, "tokens"),
            *_with_interval("bits_per_byte", whole.bits_per_byte, resampled.bits_per_byte, "bits"),
            Figure(name="test_files", value=float(len(np.unique(split["files"]))), unit="files"),
        ],
    )


def ngram_baselines(train_tokens: NDArray[np.int32], split: Split, *, vocabulary: int) -> list[Figure]:
    """Perplexity and bits per byte of a unigram and a bigram model, counted on `train_tokens` (samples, context + 1).

    The unigram is smoothed by adding one; the bigram is interpolated with it after Witten & Bell (1991): a
    token that was followed by many different ones trusts its own counts less.
    """
    unigram = np.bincount(train_tokens[:, 1:].ravel(), minlength=vocabulary) + 1.0
    unigram /= unigram.sum()
    pairs = train_tokens[:, :-1].astype(np.int64) * vocabulary + train_tokens[:, 1:]
    counts = np.bincount(pairs.ravel(), minlength=vocabulary * vocabulary).reshape(vocabulary, vocabulary)
    seen, kinds = counts.sum(axis=1), (counts > 0).sum(axis=1)
    before, after = split["tokens"][:, :-1].ravel(), split["tokens"][:, 1:].ravel()
    bigram = (counts[before, after] + kinds[before] * unigram[after]) / np.maximum(seen + kinds, 1)[before]
    probability = {"unigram": unigram[after], "bigram": np.where(seen[before] > 0, bigram, unigram[after])}
    size = float(split["bytes"].sum())
    figures = []
    for name, values in probability.items():
        nats = -float(np.log(values).sum())
        figures += [
            Figure(name=f"{name}_perplexity", value=math.exp(nats / len(after)), unit="tokens"),
            Figure(name=f"{name}_bits_per_byte", value=nats / math.log(2) / size, unit="bits"),
        ]
    return figures


def _totals(sums: NDArray[np.float64]) -> _Totals:
    """From (..., 4): nats, hits, tokens, bytes."""
    nats, hits, tokens, size = np.moveaxis(sums, -1, 0)
    return _Totals(nats=nats, hits=hits, tokens=tokens, bytes=size)


def _sum_by_file(per_sample: NDArray[np.float64], files: NDArray[np.int64]) -> NDArray[np.float64]:
    _, which = np.unique(files, return_inverse=True)
    sums = np.zeros((which.max() + 1, per_sample.shape[1]))
    np.add.at(sums, which, per_sample)
    return sums


def _resample(by_file: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums (resamples, 4) of as many files as there are, drawn with replacement."""
    count = len(by_file)
    generator = np.random.Generator(np.random.PCG64(_BOOTSTRAP_SEED))
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES)
    return np.asarray(drawn @ by_file)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, _PERCENTILES)
    return float(low), float(high)


def _with_interval(name: str, value: float, resampled: NDArray[np.float64], unit: str) -> list[Figure]:
    low, high = _interval(resampled)
    return [
        Figure(name=name, value=float(value), unit=unit),
        Figure(name=f"{name}_low", value=low, unit=unit),
        Figure(name=f"{name}_high", value=high, unit=unit),
    ]
