"""The tiny language model through every stage, from its text to a bundle as a region fetches it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.credentials import SigningKey
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.compression.bundling import build_bundle
from tasks.compression.stage import compress
from tasks.data.stage import prepare
from tasks.evaluation.stage import evaluate
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.training.launch import inprocess
from tasks.training.stage import train
from tests.fakes.tiny_language import REFERENCE


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything that the stages made."""

    root: Path
    recipe: Recipe
    store: ArtifactStore
    dataset: Dataset
    checkpoint: Checkpoint
    evaluation: Evaluation
    compressed: CompressedModel
    bundle: BundleRef
    folder: Path
    """The fetched bundle."""

    @property
    def golden(self) -> dict[str, Any]:
        golden: dict[str, Any] = json.loads((self.folder / "golden.json").read_bytes())
        return golden


def make_language_release(root: Path) -> Made:
    """Trains for some seconds, in this process; keys lie in `root/keys`."""
    recipe, store = get_recipe(REFERENCE), ArtifactStore((root / "store").as_uri())
    dataset = prepare(recipe, 1, store)
    checkpoint = train(recipe, dataset, seed=1, workers=1, store=store, run=str(root / "run"), launch=inprocess.launch)
    evaluation = evaluate(recipe, dataset, checkpoint, store)
    compressed = compress(recipe, dataset, checkpoint, evaluation, store)
    bundle = seal_language_model(recipe, compressed, evaluation, store, root / "keys")
    return Made(
        root=root,
        recipe=recipe,
        store=store,
        dataset=dataset,
        checkpoint=checkpoint,
        evaluation=evaluation,
        compressed=compressed,
        bundle=bundle,
        folder=store.fetch_bundle(bundle.digest, root / "bundle"),
    )


def seal_language_model(
    recipe: Recipe, compressed: CompressedModel, evaluation: Evaluation, store: ArtifactStore, keys: Path
) -> BundleRef:
    plan = ReleasePlan(
        release_id="r-1",
        recipe=recipe.reference,
        seed=1,
        store_uri=store.uri,
        regions=["us-east"],
        code_version="c",
        data_hash="d",
    )
    return build_bundle(recipe, plan, compressed, evaluation, store, SigningKey.ensure(keys), {})
