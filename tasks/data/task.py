"""Flyte shell of the data stage."""

from serving.store import ArtifactStore
from tasks.artifacts import Dataset, ReleasePlan
from tasks.recipes.finding import recipe_of
from tasks.shell import stage


@stage("data")
def prepare_data(plan: ReleasePlan) -> Dataset:
    """Write the recipe's splits into the store, once per content."""
    from tasks.data.stage import prepare

    return prepare(recipe_of(plan), plan.seed, ArtifactStore(plan.store_uri))
