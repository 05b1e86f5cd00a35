"""Flyte shells of compression and bundling."""

import os
import subprocess
from pathlib import Path

from flytekit import current_context

from serving.credentials import SigningKey
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.actor import present_actor
from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.recipes.finding import recipe_of
from tasks.shell import stage


@stage("compression", page="tasks.compression.plots:compression_page")
def compress_model(
    plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation
) -> CompressedModel:
    """Export to ONNX and quantize to INT8 for CPU and for TensorRT."""
    from tasks.compression.stage import compress

    return compress(recipe_of(plan), dataset, checkpoint, evaluation, ArtifactStore(plan.store_uri))


@stage("bundle")
def build_bundle(
    plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation, compressed: CompressedModel
) -> BundleRef:
    """Seal and sign what every region will serve."""
    from tasks.compression import bundling

    lineage = {
        "commit": _commit(),
        "code": plan.code_version,
        "data": dataset.sha256,
        "checkpoint": checkpoint.sha256,
        "release": plan.release_id,
        "actor": present_actor(),
        "execution": current_context().execution_id.name if current_context().execution_id else "local",
    }
    store, key = ArtifactStore(plan.store_uri), SigningKey.ensure(Settings().root / "keys")
    return bundling.build_bundle(recipe_of(plan), plan, compressed, evaluation, store, key, lineage)


def _commit() -> str:
    """The commit this code stands at: FLIGHTPATH_COMMIT in an image, git in a checkout."""
    given = os.environ.get("FLIGHTPATH_COMMIT")
    if given:
        return given
    root = Path(__file__).resolve().parent.parent.parent
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
