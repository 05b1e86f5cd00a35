"""Flyte shell of training by PyTorch elastic: flytekit's torchrun, in one pod or in a PyTorchJob.

flytekit calls the task's function in every worker and takes what the first one returns. This is a module of its own,
loaded when it is asked for, because the plugin loads torch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from flytekit import Resources, task
from flytekit.configuration import SerializationSettings
from flytekit.exceptions.user import FlyteUserRuntimeException
from flytekit.extend import TaskPlugins
from flytekitplugins.kfpytorch import Elastic
from flytekitplugins.kfpytorch.task import PytorchElasticFunctionTask
from torch import distributed

from serving.errors import FlightpathError, PermanentError, RetryableError
from serving.store_files import StoreFiles
from tasks.artifacts import Checkpoint, Dataset, ReleasePlan
from tasks.boundary import runs_locally, translated
from tasks.recipes.finding import recipe_of
from tasks.recipes.recipe import Recipe
from tasks.training.launch import STORE_OF_ITS_OWN
from tasks.training.launch.torchrun import process_group
from tasks.training.loop import TrainingOrder, train_worker
from tasks.training.recorded import RETRIES, run_of, train_recorded
from tasks.training.refusals import Refusal
from tasks.training.reporting import append_to

_MOST_PER_NODE: Final = 8
"""Workers in one pod: as many as a machine usually has GPUs."""


@dataclass
class TrainingElastic(Elastic):
    """An Elastic whose workers' refusals are not tried again."""


class TrainingElasticTask(PytorchElasticFunctionTask):
    """Takes its shape from the recipe: flytekit's own keeps for ever what its decorator said.

    What a node's override says reaches the cluster, but not the task that is loaded again in the pod.
    """

    @property
    def task_type(self) -> str:
        return str(self._ELASTIC_TASK_TYPE_STANDALONE if self.task_config.nnodes == 1 else self._ELASTIC_TASK_TYPE)

    def get_custom(self, settings: SerializationSettings) -> dict[str, Any] | None:
        self.min_nodes = self.max_nodes = self.task_config.nnodes
        custom: dict[str, Any] | None = super().get_custom(settings)
        return custom

    def execute(self, **kwargs: Any) -> Any:
        self._task_config = elastic_workers(recipe_of(kwargs["plan"]))
        self.min_nodes = self.max_nodes = self.task_config.nnodes
        os.environ.update(STORE_OF_ITS_OWN)
        try:
            result = super().execute(**kwargs)
        except FlyteUserRuntimeException as failed:
            if (refused := _refusal(kwargs["plan"]).read()) is not None:
                raise translated(refused) from failed
            if not runs_locally():
                raise
            raise translated(RetryableError("training failed", got=f"{failed.value}")) from failed
        if isinstance(result, PermanentError):
            raise translated(result)
        return result


TaskPlugins.register_pythontask_plugin(TrainingElastic, TrainingElasticTask)


def elastic_workers(recipe: Recipe) -> TrainingElastic:
    """Nodes, and workers of each: one pod where they fit in, else a PyTorchJob of equal pods."""
    nodes, each = _shape(recipe.workers)
    return TrainingElastic(
        nnodes=nodes,
        nproc_per_node=each,
        max_restarts=recipe.max_failures,
        monitor_interval=1,
        increase_shared_mem=False,
    )


def elastic_pod(recipe: Recipe) -> Resources:
    """What one pod needs for its workers."""
    _, each = _shape(recipe.workers)
    asked = recipe.resources
    amount = asked.memory.rstrip("GMTi")
    return Resources(
        cpu=str(each * asked.cpus),
        mem=f"{each * int(amount)}{asked.memory[len(amount) :]}",
        gpu=str(each * asked.gpus) if asked.gpus else None,
    )


def _shape(workers: int) -> tuple[int, int]:
    each = next(size for size in range(min(workers, _MOST_PER_NODE), 0, -1) if workers % size == 0)
    return workers // each, each


@task(
    enable_deck=True,
    deck_fields=(),
    task_config=TrainingElastic(),
    shared_memory=True,  # NCCL's, between the workers of a pod
    retries=RETRIES,
)
def train_elastic(plan: ReleasePlan, dataset: Dataset) -> Checkpoint:
    """Train the recipe's model, or go on from the newest verified checkpoint of this release."""
    with process_group() as device:
        if distributed.is_initialized() and distributed.get_rank() > 0:
            _follow(plan, device)
            return None  # type: ignore[return-value]  # flytekit takes what the first worker returns
        return _lead(plan, dataset, device)  # type: ignore[return-value]  # a refusal is raised by the task


def _lead(plan: ReleasePlan, dataset: Dataset, device: torch.device) -> Checkpoint | PermanentError:
    """The stage. What it launches, all workers do.

    What a worker refuses it raises, so that the others do not wait for it; started again, all end at once.
    """
    told, refusal = False, _refusal(plan)
    if _is_first_start():
        refusal.clear()
    elif (refused := refusal.read()) is not None:
        _tell(None)
        return refused

    def launch(order: TrainingOrder) -> None:
        nonlocal told
        told = True
        _tell(order)
        with _leaving(refusal):
            train_worker(order, listener=append_to(StoreFiles.open(order.run)), device=device)

    try:
        return train_recorded(plan=plan, dataset=dataset, launch=launch)
    except FlightpathError as failed:
        if not isinstance(failed, PermanentError):
            raise translated(failed) from failed
        if told:
            raise
        return failed
    finally:
        if not told:
            _tell(None)


def _follow(plan: ReleasePlan, device: torch.device) -> None:
    order = _tell(None)
    if order is not None:
        with _leaving(_refusal(plan)):
            train_worker(order, device=device)


@contextmanager
def _leaving(refusal: Refusal) -> Iterator[None]:
    try:
        yield
    except PermanentError as refused:
        refusal.leave(refused)
        raise


def _refusal(plan: ReleasePlan) -> Refusal:
    return Refusal(StoreFiles.open(run_of(plan)), "elastic")


def _is_first_start() -> bool:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"


def _tell(order: TrainingOrder | None) -> TrainingOrder | None:
    """The first worker's order, in every worker; None where there is nothing to train."""
    if not distributed.is_initialized():
        return order
    told = [order]
    distributed.broadcast_object_list(told, src=0)
    return told[0]
