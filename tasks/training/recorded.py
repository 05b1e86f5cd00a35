"""The training stage as both of its Flyte shells run it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, ReleasePlan
from tasks.recipes.finding import recipe_of
from tasks.shell import recorded

if TYPE_CHECKING:
    from tasks.training.loop import TrainingOrder

RETRIES: Final = 2
"""Of the whole task, when its pod or node is lost: what a worker's failure costs is `Recipe.max_failures`."""


def run_of(plan: ReleasePlan) -> str:
    """The address of the release's run."""
    return f"{Settings().runs_uri}/{plan.release_id}"


@recorded("training", page="tasks.training.plots:training_curve")
def train_recorded(plan: ReleasePlan, dataset: Dataset, launch: Callable[["TrainingOrder"], None]) -> Checkpoint:
    """Train the recipe's model, or go on from the newest verified checkpoint of this release."""
    from tasks.training.stage import train

    recipe = recipe_of(plan)
    return train(
        recipe,
        dataset,
        seed=plan.seed,
        workers=recipe.workers,
        store=ArtifactStore(plan.store_uri),
        run=run_of(plan),
        launch=launch,
    )
