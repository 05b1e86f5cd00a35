"""Flyte shells of compression and bundling."""

import os
import subprocess
from pathlib import Path

from flytekit import current_context, task

from serving.credentials import SigningKey
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.actor import present_actor
from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.boundary import at_boundary, publish_deck
from tasks.ledger import Ledger


@task(enable_deck=True, deck_fields=())
@at_boundary
def compress_model(
    plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation
) -> CompressedModel:
    """Export to ONNX and quantize to INT8 for CPU and for TensorRT."""
    from tasks.compression.compress import compress
    from tasks.compression.plots import compression_page
    from tasks.training.recipes import get_recipe

    store = ArtifactStore(plan.store_uri)
    compressed = Ledger(store, plan.release_id).once(
        "compression",
        CompressedModel,
        lambda: compress(get_recipe(plan.recipe), dataset, checkpoint, evaluation, store),
    )
    publish_deck(plan.release_id, "compression", "Compression", compression_page(compressed))
    return compressed


@task
@at_boundary
def build_bundle(
    plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation, compressed: CompressedModel
) -> BundleRef:
    """Seal and sign what every region will serve."""
    from tasks.compression import bundling
    from tasks.training.recipes import get_recipe

    store = ArtifactStore(plan.store_uri)
    lineage = {
        "commit": _commit(),
        "code": plan.code_version,
        "data": dataset.sha256,
        "checkpoint": checkpoint.sha256,
        "release": plan.release_id,
        "actor": present_actor(),
        "execution": current_context().execution_id.name if current_context().execution_id else "local",
    }
    return Ledger(store, plan.release_id).once(
        "bundle",
        BundleRef,
        lambda: bundling.build_bundle(
            get_recipe(plan.recipe),
            plan,
            compressed,
            evaluation,
            store,
            SigningKey.ensure(Settings().root / "keys"),
            lineage,
        ),
    )


def _commit() -> str:
    """The commit this code stands at: FLIGHTPATH_COMMIT in an image, git in a checkout."""
    given = os.environ.get("FLIGHTPATH_COMMIT")
    if given:
        return given
    root = Path(__file__).resolve().parent.parent.parent
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
