"""A run that diverges stops with step, rank and samples, and leaves no checkpoint of it."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serving.errors import InvalidInput, PermanentError
from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.checkpointing import read_model, take_snapshot
from tasks.training.divergence import Divergence
from tasks.training.launch import inprocess
from tasks.training.stage import train
from tests.fakes.poisoned_recipe import REFERENCE, SAMPLE
from tests.fakes.runs import look


def _watched(losses: list[float], norms: list[float]) -> tuple[int, int] | None:
    divergence = Divergence(torch.device("cpu"))
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        divergence.watch(step, torch.tensor(loss), torch.tensor(norm))
    return divergence.found()


def test_the_first_step_counts() -> None:
    nan, infinite = math.nan, math.inf
    assert _watched([1.0, 2.0], [0.0, 3.0]) is None
    assert _watched([1.0, nan, nan], [1.0, nan, nan]) == (1, 1)
    assert _watched([1.0, 1.0, nan], [1.0, infinite, nan]) == (1, 2)
    assert _watched([1.0, 1.0], [-infinite, 1.0]) == (0, -1)


def test_a_broken_sample_is_named_and_no_checkpoint_has_seen_it(tmp_path: Path) -> None:
    recipe, store = get_recipe(REFERENCE), ArtifactStore((tmp_path / "store").as_uri())
    dataset = prepare(recipe, 1, store)
    run = tmp_path / "run"
    with pytest.raises(PermanentError, match=r"loss is not finite in step \d+ of rank 0") as stopped:
        train(recipe, dataset, seed=3, workers=1, store=store, run=str(run), launch=inprocess.launch)
    assert re.search(rf"\b{SAMPLE}\b", str(stopped.value))
    newest = look(run).newest
    if newest is not None:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in read_model(newest.folder).values())


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    recipe, store = get_recipe(REFERENCE, '{"data.broken": "label"}'), ArtifactStore((tmp_path / "store").as_uri())
    dataset, run = prepare(recipe, 1, store), str(tmp_path / "run")
    with pytest.raises(PermanentError, match=r"family's loss failed in step \d+ of rank 0, got IndexError: Target 99"):
        train(recipe, dataset, seed=3, workers=1, store=store, run=run, launch=inprocess.launch)


def test_a_data_set_smaller_than_the_batch_is_refused(tmp_path: Path) -> None:
    recipe, store = get_recipe(REFERENCE), ArtifactStore((tmp_path / "store").as_uri())
    dataset = replace(prepare(recipe, 1, store), samples={"train": 31})
    with pytest.raises(InvalidInput, match="smaller than the batch, got 31 training samples, expected >= 32"):
        train(recipe, dataset, seed=3, workers=1, store=store, run=str(tmp_path), launch=inprocess.launch)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight[0, 1] = math.inf
    with pytest.raises(PermanentError, match="weights are not finite, got weight"):
        take_snapshot(model, torch.optim.AdamW(model.parameters()), [])
