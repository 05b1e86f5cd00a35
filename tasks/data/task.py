"""Flyte shell of the data stage."""

import time

from flytekit import task

from serving.store import ArtifactStore
from tasks.artifacts import Dataset, ReleasePlan
from tasks.boundary import at_boundary
from tasks.ledger import Ledger


@task
@at_boundary
def prepare_data(plan: ReleasePlan) -> Dataset:
    """Write the recipe's splits into the store, once per content."""
    from tasks.data.module import prepare
    from tasks.training.recipes import get_recipe

    store = ArtifactStore(plan.store_uri)

    def produce() -> Dataset:
        began = time.monotonic()
        dataset = prepare(get_recipe(plan.recipe), plan.seed, store)
        dataset.seconds = time.monotonic() - began
        return dataset

    return Ledger(store, plan.release_id).once("data", Dataset, produce)
