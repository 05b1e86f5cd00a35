"""Data-parallel training under Ray Train: Ray places and restarts workers, our checkpoints resume them.

Uses the Ray that the caller has initialised (Flyte's Ray plugin does), or starts one on this machine
and stops it afterwards. That one demands a token of whoever connects: Ray listens on every interface.
"""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType
from typing import Any, Final

from serving.errors import FlightpathError, InvalidInput, PermanentError, RetryableError
from serving.store_files import StoreFiles
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.training.loop import TrainingOrder, train_worker
from tasks.training.refusals import Refusal
from tasks.training.reporting import append_to

_OBJECT_STORE_BYTES: Final = 256 * 1024 * 1024
"""Nothing large goes through Ray's objects: data and checkpoints are files."""

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_worker_niceness": "5",
}
"""Phones nobody; waits for workers on a loaded machine; gives way to servers (Ray's 15 starves beside two busy
processes: a thirtieth of a core each). Defaults: what the caller has set stays."""


def launch(order: TrainingOrder) -> None:
    """Train with `order.workers` workers, over NCCL where the recipe asks for GPUs and over gloo where it does not.

    Raises:
        InvalidInput: Ray is not installed.
        PermanentError: a worker refused to go on, which no restart can mend.
        RetryableError: Ray did not start, or workers failed more often than the recipe allows.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "ray._raylet" not in sys.modules:
        # Ray reads this when it is loaded; a process that has loaded it already keeps the mode it began with.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    ray = _import_ray()
    recipe = get_recipe(order.recipe, order.overrides)
    with _ray_running(ray, cpus=order.workers * recipe.resources.cpus):
        _fit(order, recipe)


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.train.torch
    except ImportError as missing:
        raise InvalidInput(
            f"Ray is not usable ({missing})", got="no ray.train", expected="ray[train] >= 2.60, or another launcher"
        ) from missing
    return ray


@contextmanager
def _ray_running(ray: ModuleType, *, cpus: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    # Sockets below it may have 107 characters.
    folder = tempfile.mkdtemp(prefix="fp-ray-", dir="/tmp")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        _start(ray, cpus, folder)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(ray: ModuleType, cpus: int, folder: str) -> None:
    try:
        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level="warning",
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
            # Workers do not inherit what this process added to its path, and recipes are found by it.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}},
        )
    except Exception as failed:
        # A node that does not come up in time is a bare Exception of Ray's.
        raise RetryableError(f"Ray did not start ({failed})", expected="a free machine") from failed


def _fit(order: TrainingOrder, recipe: Recipe) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    asked, run, name = recipe.resources, StoreFiles.open(order.run), secrets.token_hex(4)
    refusal = Refusal(run, name)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"order": asdict(order), "launch": name},
        torch_config=TorchConfig(backend="nccl" if asked.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=order.workers,
            use_gpu=asked.gpus > 0,
            resources_per_worker={"CPU": asked.cpus, **({"GPU": asked.gpus} if asked.gpus else {})},
        ),
        run_config=RunConfig(
            # A name of its own for each launch: our checkpoints resume a run, not Ray's snapshot.
            name=f"launch-{name}",
            **_storage(run),
            failure_config=FailureConfig(max_failures=recipe.max_failures),
        ),
    )
    # Ray replaces the Ctrl-C of the whole process and never gives it back: a later stage could not be aborted.
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except FlightpathError:
        raise
    except Exception as failed:
        if (refused := refusal.read()) is not None:
            raise refused from failed
        # Ray wraps whatever a worker raised in exceptions of its own that differ by version.
        raise RetryableError(f"training under Ray failed ({failed})", expected="workers that end well") from failed
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
    if (refused := refusal.read()) is not None:
        raise refused


def _storage(run: StoreFiles) -> dict[str, Any]:
    """Where Ray keeps what it keeps of a run, which is little: our checkpoints are not its own."""
    if run.local:
        return {"storage_path": str(run.folder / "ray")}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = fsspec.core.url_to_fs(run.address("ray"))
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(system))}


def _work(told: dict[str, Any]) -> None:
    """One worker. It raises what it refuses, so that the others do not wait for it; tried again, all end at once."""
    import torch
    from ray.train.torch import get_device

    order = TrainingOrder(**told["order"])
    run = StoreFiles.open(order.run)
    refusal = Refusal(run, told["launch"])
    if refusal.read() is not None:
        return
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        train_worker(order, listener=append_to(run), device=device)
    except PermanentError as refused:
        refusal.leave(refused)
        raise
