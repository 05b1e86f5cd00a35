"""Flyte shells of training: the recipe's workers become a Ray cluster's, or those of PyTorch elastic.

What a cluster must supply is known once the recipe is, so a dynamic workflow asks for it. On a Flyte cluster the Ray
plugin makes a RayCluster for the task and connects to it. On this machine `launch/ray.py` starts a bounded Ray (no
dashboard, small object store) only when there is something to train, so the plugin's own unbounded `ray.init()` is
skipped there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flytekit import ExecutionParameters, Resources, dynamic, task
from flytekit.extend import TaskPlugins
from flytekit.extras.accelerators import GPUAccelerator
from flytekitplugins.ray import HeadNodeConfig, RayJobConfig, WorkerNodeConfig
from flytekitplugins.ray.task import RayFunctionTask

from tasks.artifacts import Checkpoint, Dataset, ReleasePlan
from tasks.boundary import at_boundary, runs_locally
from tasks.recipes.finding import recipe_of
from tasks.recipes.recipe import Recipe
from tasks.training.launch import RAY, check_launcher
from tasks.training.recorded import RETRIES, train_recorded

_HEAD: Final = Resources(cpu="1", mem="2Gi")


@dataclass
class TrainingRayConfig(RayJobConfig):
    """A RayJobConfig whose task does not start Ray on this machine by itself."""


class TrainingRayTask(RayFunctionTask):
    def __init__(self, task_config: TrainingRayConfig, task_function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(task_config, task_function, **kwargs)

    def pre_execute(self, user_params: ExecutionParameters) -> ExecutionParameters:
        return user_params if runs_locally() else super().pre_execute(user_params)


TaskPlugins.register_pythontask_plugin(TrainingRayConfig, TrainingRayTask)


def ray_cluster(workers: int, each: Resources) -> TrainingRayConfig:
    """A head that computes nothing, and a group of `workers`."""
    return TrainingRayConfig(
        head_node_config=HeadNodeConfig(
            requests=_HEAD,
            limits=Resources(cpu="2", mem="4Gi"),
            # Training is for the workers, which have what the recipe asks for.
            ray_start_params={"num-cpus": "0", "num-gpus": "0"},
        ),
        worker_node_config=[WorkerNodeConfig(group_name="ddp", replicas=workers, requests=each, limits=each)],
        shutdown_after_job_finishes=True,
        ttl_seconds_after_finished=600,
    )


def worker_resources(recipe: Recipe) -> Resources:
    """Of one worker: requests and limits are the same, so that no neighbour slows one of them down."""
    asked = recipe.resources
    return Resources(cpu=str(asked.cpus), mem=asked.memory, gpu=str(asked.gpus) if asked.gpus else None)


@task(task_config=ray_cluster(2, Resources(cpu="1", mem="2Gi")), enable_deck=True, deck_fields=(), retries=RETRIES)
@at_boundary
def train_on_ray(plan: ReleasePlan, dataset: Dataset) -> Checkpoint:
    """Under Ray Train."""
    from tasks.training.launch.ray import launch

    checkpoint: Checkpoint = train_recorded(plan=plan, dataset=dataset, launch=launch)
    return checkpoint


@dynamic
@at_boundary
def train_model(plan: ReleasePlan, dataset: Dataset, launcher: str) -> Checkpoint:
    """Train with as many workers, and with what each of them needs, as the recipe says."""
    check_launcher(launcher)
    recipe = recipe_of(plan)
    asked: dict[str, Any] = {}
    if recipe.resources.accelerator:
        asked["accelerator"] = GPUAccelerator(recipe.resources.accelerator)
    if launcher == RAY:
        cluster = ray_cluster(recipe.workers, worker_resources(recipe))
        return train_on_ray(plan=plan, dataset=dataset).with_overrides(task_config=cluster, **asked)
    # Loads torch, which nothing that only compiles workflows should wait for.
    from tasks.training.elastic_task import elastic_pod, elastic_workers, train_elastic

    pod = elastic_pod(recipe)
    return train_elastic(plan=plan, dataset=dataset).with_overrides(
        task_config=elastic_workers(recipe), requests=pod, limits=pod, shared_memory=True, **asked
    )
