"""From a checkpoint to a sealed bundle."""

from flytekit import workflow

from tasks.artifacts import BundleRef, Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.compression.task import build_bundle, compress_model


@workflow
def compression(plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation) -> CompressedModel:
    """Export to ONNX, calibrate, quantize to INT8 and judge every variant."""
    return compress_model(plan=plan, dataset=dataset, checkpoint=checkpoint, evaluation=evaluation)


@workflow
def bundle(
    plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation, compressed: CompressedModel
) -> BundleRef:
    """Seal, sign and store what every region will serve."""
    return build_bundle(plan=plan, dataset=dataset, checkpoint=checkpoint, evaluation=evaluation, compressed=compressed)
