"""Flyte shell of training: a Ray task, two DDP workers.

On a Flyte cluster the Ray plugin makes a RayCluster for the task and connects to it. On this machine
`launch/ray.py` starts a bounded Ray (no dashboard, small object store) only when there is something
to train, so the plugin's own unbounded `ray.init()` is skipped there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flytekit import ExecutionParameters, Resources, task
from flytekit.extend import TaskPlugins
from flytekitplugins.ray import HeadNodeConfig, RayJobConfig, WorkerNodeConfig
from flytekitplugins.ray.task import RayFunctionTask

from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, Dataset, ReleasePlan
from tasks.boundary import at_boundary, publish_deck, runs_locally
from tasks.ledger import Ledger

WORKERS = 2


@dataclass
class TrainingRayConfig(RayJobConfig):
    """A RayJobConfig whose task does not start Ray on this machine by itself."""


class TrainingRayTask(RayFunctionTask):
    def __init__(self, task_config: TrainingRayConfig, task_function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(task_config, task_function, **kwargs)

    def pre_execute(self, user_params: ExecutionParameters) -> ExecutionParameters:
        return user_params if runs_locally() else super().pre_execute(user_params)


TaskPlugins.register_pythontask_plugin(TrainingRayConfig, TrainingRayTask)


@task(
    task_config=TrainingRayConfig(
        head_node_config=HeadNodeConfig(requests=Resources(cpu="1", mem="2Gi"), limits=Resources(cpu="2", mem="4Gi")),
        worker_node_config=[
            WorkerNodeConfig(
                group_name="ddp",
                replicas=WORKERS,
                requests=Resources(cpu="1", mem="2Gi"),
                limits=Resources(cpu="2", mem="4Gi"),
            )
        ],
        shutdown_after_job_finishes=True,
        ttl_seconds_after_finished=600,
    ),
    enable_deck=True,
    deck_fields=(),
    retries=2,
)
@at_boundary
def train_model(plan: ReleasePlan, dataset: Dataset) -> Checkpoint:
    """Train the recipe's model, or go on from the newest verified checkpoint of this release."""
    from tasks.training.entry import train
    from tasks.training.launch.ray import launch
    from tasks.training.plots import training_curve
    from tasks.training.recipes import get_recipe

    recipe = get_recipe(plan.recipe)
    store = ArtifactStore(plan.store_uri)
    checkpoint = Ledger(store, plan.release_id).once(
        "training",
        Checkpoint,
        lambda: train(
            recipe,
            dataset,
            seed=plan.seed,
            workers=WORKERS,
            store=store,
            run_folder=Settings().root / "runs" / plan.release_id,
            launch=launch,
        ),
    )
    publish_deck(plan.release_id, "training", "Training curve", training_curve(checkpoint))
    return checkpoint
