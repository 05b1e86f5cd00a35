"""Flyte shell of evaluation."""

from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, Evaluation, ReleasePlan
from tasks.recipes.finding import recipe_of
from tasks.shell import stage


@stage("evaluation", page="tasks.evaluation.plots:evaluation_page")
def evaluate_model(plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint) -> Evaluation:
    """Judge the checkpoint on held-out data and make the golden set from its answers."""
    from tasks.evaluation.stage import evaluate

    return evaluate(recipe_of(plan), dataset, checkpoint, ArtifactStore(plan.store_uri))
