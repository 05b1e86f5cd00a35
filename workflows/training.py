"""From data to an evaluated model."""

from flytekit import workflow

from tasks.artifacts import Checkpoint, Dataset, Evaluation, ReleasePlan
from tasks.data.task import prepare_data
from tasks.evaluation.task import evaluate_model
from tasks.release.task import plan_training
from tasks.training.task import train_model


@workflow
def data(plan: ReleasePlan) -> Dataset:
    """Write the recipe's splits into the artifact store."""
    return prepare_data(plan=plan)


@workflow
def training(plan: ReleasePlan, dataset: Dataset, launcher: str = "ray") -> Checkpoint:
    """Train with DDP on Ray, or by PyTorch elastic (`elastic`): the same loop, the same curve."""
    return train_model(plan=plan, dataset=dataset, launcher=launcher)


@workflow
def evaluation(plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint) -> Evaluation:
    """Judge on held-out data and make the golden set."""
    return evaluate_model(plan=plan, dataset=dataset, checkpoint=checkpoint)


@workflow
def train(
    recipe: str = "resnet-digits", overrides: str = "", launcher: str = "ray", seed: int = 1, release_id: str = ""
) -> tuple[ReleasePlan, Dataset, Checkpoint, Evaluation]:
    """Everything up to an evaluated checkpoint, for a run that goes to no region."""
    plan = plan_training(recipe=recipe, overrides=overrides, launcher=launcher, release_id=release_id, seed=seed)
    dataset = data(plan=plan)
    checkpoint = training(plan=plan, dataset=dataset, launcher=launcher)
    return plan, dataset, checkpoint, evaluation(plan=plan, dataset=dataset, checkpoint=checkpoint)
