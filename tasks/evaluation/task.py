"""Flyte shell of evaluation."""

from flytekit import task

from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, Evaluation, ReleasePlan
from tasks.boundary import at_boundary, publish_deck
from tasks.ledger import Ledger


@task(enable_deck=True, deck_fields=())
@at_boundary
def evaluate_model(plan: ReleasePlan, dataset: Dataset, checkpoint: Checkpoint) -> Evaluation:
    """Judge the checkpoint on held-out data and make the golden set from its answers."""
    from tasks.evaluation.accuracy import evaluate
    from tasks.evaluation.plots import evaluation_page
    from tasks.training.recipes import get_recipe

    store = ArtifactStore(plan.store_uri)
    evaluation = Ledger(store, plan.release_id).once(
        "evaluation", Evaluation, lambda: evaluate(get_recipe(plan.recipe), dataset, checkpoint, store)
    )
    publish_deck(plan.release_id, "evaluation", "Evaluation", evaluation_page(evaluation))
    return evaluation
