"""Judging regressors: the share of answers within a tolerance, with its interval, beside RMSE and R2."""

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from serving.errors import InvalidInput
from tasks.artifacts import Figure
from tasks.families.classification import GOLDEN, wilson_interval
from tasks.families.golden_inputs import golden_arrays
from tasks.recipes.data_source import Split
from tasks.recipes.family import Golden, HeldOut, Judgement


def judge_regression(answers: NDArray[np.float32], targets: NDArray[np.float32], *, tolerance: float) -> Judgement:
    """Accuracy is the share of samples whose every value lies within `tolerance` of its target: each sample is right or
    wrong, as gates compare versions.

    Args:
        answers: (samples, values) or (samples,).
        targets: likewise, in the unit of `tolerance`.
    """
    got, wanted = _rows(answers), _rows(targets)
    if got.shape != wanted.shape:
        raise InvalidInput("answers have a wrong shape", got=answers.shape, expected=targets.shape)
    errors = got - wanted
    right = int((np.abs(errors) <= tolerance).all(axis=1).sum())
    spread = float(((wanted - wanted.mean(axis=0)) ** 2).sum())
    return Judgement(
        accuracy=right / len(wanted),
        interval=wilson_interval(right, len(wanted)),
        figures=[
            Figure(name="rmse", value=float(np.sqrt((errors**2).mean())), unit="target's unit"),
            Figure(name="r2", value=1.0 - float((errors**2).sum()) / spread if spread else 0.0, unit="share"),
        ],
    )


def mean_of_training(train: NDArray[np.float32], targets: NDArray[np.float32], *, tolerance: float) -> list[Figure]:
    """What always answering the mean of the training targets reaches."""
    guess = np.broadcast_to(_rows(train).mean(axis=0), _rows(targets).shape)
    judged = judge_regression(guess.astype(np.float32), _rows(targets).astype(np.float32), tolerance=tolerance)
    rmse = next(figure.value for figure in judged.figures if figure.name == "rmse")
    return [
        Figure(name="mean_accuracy", value=judged.accuracy, unit="share"),
        Figure(name="mean_rmse", value=rmse, unit="target's unit"),
    ]


def regression_golden(held_out: HeldOut, *, inputs: Split, targets: NDArray[np.float32], tolerance: float) -> Golden:
    """`golden.safetensors`: drawn samples' inputs and `targets`, the model's answers (`reference`), and `tolerance`."""
    arrays = golden_arrays(held_out, inputs, {"targets": targets.astype(np.float32)})
    arrays["tolerance"] = np.array([tolerance], dtype=np.float64)
    judged = judge_regression(arrays["reference"], arrays["targets"], tolerance=tolerance)
    return Golden(file=GOLDEN, content=save(arrays), samples=len(arrays["targets"]), accuracy=judged.accuracy)


def _rows(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1).astype(np.float64)
