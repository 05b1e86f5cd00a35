"""Figures of a language model: exact where they can be worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import InvalidInput
from tasks.families.language import judge_tokens, ngram_baselines
from tasks.recipes.data_source import Split
from tasks.recipes.family import Judgement


def answers_of(probability: float, *, samples: int = 4, context: int = 8) -> NDArray[np.float32]:
    """Every token has this probability; every second one is ranked first."""
    answers = np.zeros((samples, context, 2), dtype=np.float32)
    answers[..., 0] = math.log(probability)
    answers[:, ::2, 1] = 1.0
    return answers


def split_of(samples: int = 4) -> Split:
    return {"bytes": np.full(samples, 24), "files": np.arange(samples) // 2}


def values(judgement: Judgement) -> dict[str, float]:
    return {figure.name: figure.value for figure in judgement.figures}


def test_a_token_in_eight_is_perplexity_eight_and_one_bit_per_byte() -> None:
    judgement = judge_tokens(answers_of(1 / 8), split_of())
    found = values(judgement)
    assert found["perplexity"] == pytest.approx(8.0)
    # 3 bits per token, 8 tokens in 24 bytes.
    assert found["bits_per_byte"] == pytest.approx(1.0)
    assert (judgement.accuracy, found["test_files"]) == (0.5, 2.0)


def test_equal_files_leave_no_doubt_and_unequal_ones_do() -> None:
    sure = values(judge_tokens(answers_of(1 / 8), split_of()))
    assert sure["perplexity_low"] == pytest.approx(sure["perplexity_high"])
    mixed = answers_of(1 / 8, samples=20)
    mixed[10:, :, 0] = math.log(1 / 2)
    unsure = values(judge_tokens(mixed, split_of(20)))
    assert unsure["perplexity_low"] < unsure["perplexity"] < unsure["perplexity_high"]
    assert values(judge_tokens(mixed, split_of(20))) == unsure


def test_a_bigram_beats_a_unigram_where_order_matters() -> None:
    tokens = np.tile(np.array([0, 1, 2, 3], dtype=np.int32), 20)[None, :].repeat(3, axis=0)
    split = {"tokens": tokens[:1], "bytes": np.array([79]), "files": np.array([0])}
    found = {figure.name: figure.value for figure in ngram_baselines(tokens, split, vocabulary=4)}
    assert found["unigram_perplexity"] == pytest.approx(4.0, rel=0.01)
    assert found["bigram_perplexity"] < 1.05
    assert found["unigram_bits_per_byte"] == pytest.approx(2.0, rel=0.01)


def test_baselines_are_proper_distributions() -> None:
    generator = np.random.default_rng(3)
    train = generator.integers(0, 5, size=(4, 9)).astype(np.int32)
    total = {"unigram": 0.0, "bigram": 0.0}
    for following in range(7):
        # Token 6 was never seen in training: the bigram falls back.
        for before in (0, 6):
            split = {"tokens": np.array([[before, following]]), "bytes": np.array([1]), "files": np.array([0])}
            found = {figure.name: figure.value for figure in ngram_baselines(train, split, vocabulary=7)}
            for name in total:
                total[name] += 1 / found[f"{name}_perplexity"]
    assert total == pytest.approx({"unigram": 2.0, "bigram": 2.0})


def test_answers_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InvalidInput, match="wrong shape"):
        judge_tokens(np.zeros((4, 8), np.float32), split_of())
