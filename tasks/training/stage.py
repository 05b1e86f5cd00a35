"""The training stage: from a recipe and a dataset to a checkpoint in the store."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from serving.errors import InvalidInput, RetryableError
from serving.store import ArtifactStore
from serving.store_files import StoreFiles
from tasks.artifacts import Checkpoint, Dataset, Figure
from tasks.progress import announce
from tasks.recipes.recipe import Recipe
from tasks.training import checkpointing
from tasks.training.branches import Branches, Found
from tasks.training.checkpointing import SavedCheckpoint
from tasks.training.loop import TrainingOrder, run_address, run_fingerprint, total_steps
from tasks.training.reporting import announced, read_reports

Launch = Callable[[TrainingOrder], None]
"""Runs `train_worker(order)` in `order.workers` processes and returns when all have ended well."""

CHECKPOINTS: Final = "checkpoints"


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    seed: int,
    workers: int,
    store: ArtifactStore,
    run: str,
    launch: Launch,
) -> Checkpoint:
    """Train to the end and keep the final checkpoint in the store, under its manifest's SHA-256.

    Resumes from the newest whole checkpoint at the address `run`; one that is already final is only uploaded.

    Raises:
        InvalidInput: `workers` does not divide the global batch, or the run folder belongs to another run.
        RetryableError: the launcher or a worker failed; calling again resumes.
    """
    order = _order(recipe, dataset, seed=seed, workers=workers, run=run)
    files = StoreFiles.open(order.run)
    steps = total_steps(recipe, dataset.samples["train"])
    started = time.monotonic()
    launched_at = time.time()
    with tempfile.TemporaryDirectory(prefix="flightpath-run-") as scratch:
        before = _look(files, Path(scratch))
        if not _is_final(before.newest, order, recipe, steps):
            _announce_start(before, steps, workers)
            with announced(files):
                launch(order)
        final = _look(files, Path(scratch)).newest
        if final is None or final.step != steps:
            raise RetryableError(
                "training ended without its last checkpoint",
                got=final.step if final else None,
                expected=f"step {steps}",
            )
        uri = store.put_folder(final.folder, f"{CHECKPOINTS}/{final.sha256}", marker=checkpointing.MANIFEST)
        return Checkpoint(
            uri=uri,
            sha256=final.sha256,
            step=final.step,
            seconds=time.monotonic() - started,
            figures=_figures(final, files, launched_at),
        )


def _order(recipe: Recipe, dataset: Dataset, *, seed: int, workers: int, run: str) -> TrainingOrder:
    if workers < 1 or recipe.global_batch % workers:
        raise InvalidInput("workers must divide the global batch", got=workers, expected=f"{recipe.global_batch} / n")
    if dataset.samples["train"] < recipe.global_batch:
        raise InvalidInput(
            "data set is smaller than the batch",
            got=f"{dataset.samples['train']} training samples",
            expected=f">= {recipe.global_batch} (global_batch)",
        )
    if not recipe.reference:
        raise InvalidInput("recipe has no reference for the workers", got=recipe.name, expected="one from get_recipe")
    return TrainingOrder(
        recipe=recipe.reference,
        overrides=recipe.overrides,
        dataset_uri=dataset.uri,
        dataset_sha256=dataset.sha256,
        run=run_address(run),
        seed=seed,
        workers=workers,
    )


def _look(run: StoreFiles, scratch: Path) -> Found:
    found = Branches(run, scratch).find()
    for skipped in found.skipped:
        announce("training", f"skipped {skipped}")
    return found


def _is_final(newest: SavedCheckpoint | None, order: TrainingOrder, recipe: Recipe, steps: int) -> bool:
    if newest is None or newest.step != steps:
        return False
    expected = (run_fingerprint(recipe, order.dataset_sha256), order.seed)
    if (newest.fingerprint, newest.seed) != expected:
        raise InvalidInput(
            "run folder belongs to another run", got=(newest.fingerprint, newest.seed), expected=expected
        )
    return True


def _announce_start(before: Found, steps: int, workers: int) -> None:
    if before.newest is None:
        announce("training", "starting", total_steps=steps, workers=workers)
    else:
        announce("training", f"resuming from step {before.newest.step}", total_steps=steps, workers=workers)


def _figures(final: SavedCheckpoint, run: StoreFiles, launched_at: float) -> list[Figure]:
    """Last values of the curve, and what this call's own reports say of speed (absent if it only uploaded)."""
    last = checkpointing.read_curve(final.folder)[-1]
    figures = [
        Figure(name="final_loss", value=last["loss"], unit="nats"),
        *(
            Figure(name=name, value=last[name], unit=unit)
            for name, unit in (("validation_accuracy", "share"), ("validation_perplexity", "tokens"))
            if name in last
        ),
        Figure(name="workers", value=float(final.world_size), unit="workers"),
    ]
    reports = [report for report in read_reports(run)[0] if report.time >= launched_at]
    if reports:
        figures += [
            Figure(name="throughput", value=reports[-1].samples_per_s, unit="samples/s"),
            Figure(name="seconds_to_first_report", value=reports[0].time - launched_at, unit="s"),
            Figure(name="seconds_in_loop", value=reports[-1].time - reports[0].time, unit="s"),
        ]
    return figures
