"""Figures of a model's answers: shares, intervals, classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from tasks.families.classification import judge_classification, majority_class, wilson_interval


@given(trials=st.integers(1, 5000), data=st.data())
def test_the_interval_holds_the_share_and_stays_within_0_and_1(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    assert low < high


def test_the_interval_agrees_with_the_published_formula() -> None:
    # Wilson 1927, n = 10, x = 9, 95 %: 0.5958 to 0.9821 (Brown, Cai & DasGupta 2001).
    low, high = wilson_interval(9, 10)
    assert math.isclose(low, 0.5958, abs_tol=1e-4)
    assert math.isclose(high, 0.9821, abs_tol=1e-4)


def test_more_samples_narrow_the_interval() -> None:
    few, many = wilson_interval(45, 50), wilson_interval(900, 1000)
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_an_impossible_share_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(InvalidInput, match="no such share"):
        wilson_interval(successes, trials)


def test_confusion_and_recall_count_by_true_class() -> None:
    labels = np.array([0, 0, 1, 2])
    logits = np.eye(4, dtype=np.float32)[[0, 1, 1, 2]]
    judgement = judge_classification(logits, labels, classes=4)
    assert judgement.accuracy == 0.75
    assert judgement.details["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert judgement.details["recall"] == [0.5, 1.0, 1.0, None]
    assert {figure.name: figure.value for figure in judgement.figures} == {"worst_class_recall": 0.5}


def test_logits_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InvalidInput, match="wrong shape"):
        judge_classification(np.zeros((3, 2), np.float32), np.zeros(3, np.int64), classes=4)


def test_the_baseline_answers_what_training_saw_most() -> None:
    (baseline,) = majority_class(np.array([2, 2, 1, 0]), np.array([2, 1, 1, 1]))
    assert (baseline.name, baseline.value) == ("majority_class_accuracy", 0.25)
