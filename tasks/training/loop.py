"""The training loop of one worker, whatever launched it.

Data-parallel over the default process group where there is one, alone otherwise. The same recipe,
data, seed and world size give the same bits on one machine, with or without a crash in between: the
order of samples is a function of the step, the learning rate is too, and every generator's state is
in the checkpoint.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from serving.errors import FlightpathError, InvalidInput, PermanentError, RetryableError
from serving.store_files import StoreFiles
from tasks.data.dataset import fetch_dataset, read_split
from tasks.data.sampler import Sampler, steps_for
from tasks.recipes.data_source import SPLITS
from tasks.recipes.family import Family
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import OptimizerConfig, Recipe, fingerprint
from tasks.training.branches import Branches
from tasks.training.checkpointing import SavedCheckpoint, take_snapshot
from tasks.training.determinism import reproducible_torch
from tasks.training.divergence import Divergence
from tasks.training.inference import predict
from tasks.training.precision import forward_precision
from tasks.training.reporting import Listener, Progress
from tasks.training.state import TrainingState, new_state, rank_state, restore, restore_rank
from tasks.training.stopping import StopRequest, stop_request
from tasks.training.writer import CheckpointWriter, Kept

_REPORTS_PER_RUN: Final = 60
_POLL_S: Final = 1.0
"""Between two looks for a SIGTERM of any worker: a pod has some thirty seconds to save."""
_Told = TypeVar("_Told")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOrder:
    """What every worker is told. Plain types, so any launcher carries it."""

    recipe: str
    """Name or reference (`get_recipe`)."""
    overrides: str = ""
    """What is changed of it (`get_recipe`)."""
    dataset_uri: str
    dataset_sha256: str
    run: str
    """Address of checkpoints and progress: a path, or any fsspec URI. Workers share no disk."""
    seed: int
    workers: int
    resume: str = "auto"
    """`auto`: from the newest whole checkpoint of the newest branch; `never`; or a step's number. A restart of the same
    order goes on where it was, whatever it says."""
    checkpoint_interval_steps: int | None = None
    """In place of the recipe's."""
    checkpoint_interval_s: float | None = None
    """Save also when the newest checkpoint is so old."""
    keep_checkpoints: int | None = None
    """In place of the recipe's."""

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never") and not self.resume.isdecimal():
            raise InvalidInput("resume is malformed", got=self.resume, expected="auto | never | a step")
        for name in ("checkpoint_interval_steps", "checkpoint_interval_s", "keep_checkpoints"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"{name} is malformed", got=value, expected="> 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Worker:
    """Who this process is among the workers."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def current(cls, device: torch.device | None = None) -> "Worker":
        joined = distributed.is_available() and distributed.is_initialized()
        return cls(
            rank=distributed.get_rank() if joined else 0,
            world_size=distributed.get_world_size() if joined else 1,
            device=device or torch.device("cpu"),
        )

    def barrier(self) -> None:
        if self.world_size > 1:
            distributed.barrier()

    def learn_from_first(self, work: Callable[[], _Told]) -> _Told:
        """What `work` gives in rank 0, in every worker. Its failure is everyone's: none waits for one that has ended,
        and all end with the same exit code."""
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = work()
            except FlightpathError as failed:
                told[1] = failed
        if self.world_size > 1:
            distributed.broadcast_object_list(told, src=0, device=self.device)
        if told[1] is not None:
            raise told[1]
        result: _Told = told[0]
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Everything of a run that does not change from step to step."""

    recipe: Recipe
    family: Family
    worker: Worker
    seed: int
    skipped: tuple[str, ...]
    """Torn checkpoints that were newer than the one resumed from."""
    save_every_steps: int
    save_every_s: float | None
    fingerprint: str
    sampler: Sampler
    total_steps: int
    train: dict[str, torch.Tensor]
    validation: dict[str, Any]
    baselines: dict[str, float]
    """By name, what the simplest models reach on the validation split."""
    listener: Listener | None
    divergence: Divergence
    writer: CheckpointWriter | None
    """The first worker's."""


def run_address(given: str) -> str:
    """The address of a run as every worker may be told it: a URI as it is, a path made absolute.

    Raises:
        InvalidInput: it is empty, or no address.
    """
    if "://" in given:
        if given.startswith("file://") and not given.startswith("file:///"):
            raise InvalidInput("run's address is malformed", got=given, expected="file:///… with three slashes")
        StoreFiles.open(given)
        return given.rstrip("/")
    if not given or ":" in given.split("/")[0]:
        raise InvalidInput(
            "run's address is malformed", got=given, expected="a path, file:///…, s3://…, gs://… or az://…"
        )
    return str(Path(given).resolve())


def total_steps(recipe: Recipe, train_samples: int) -> int:
    """Optimizer steps of a whole run."""
    return steps_for(train_samples, global_batch=recipe.global_batch, epochs=recipe.epochs)


def train_worker(order: TrainingOrder, *, listener: Listener | None = None, device: torch.device | None = None) -> None:
    """Train to the end of the order, from its newest checkpoint on. Call it in every worker alike.

    Args:
        listener: told of progress, in rank 0 only; what it raises ends the run.

    Raises:
        PermanentError: what no restart can mend, in all workers alike.
        RetryableError: the run's store is away, or the process was asked to stop (SIGTERM) and has saved.
    """
    files = StoreFiles.open(order.run)
    with reproducible_torch(), _scratch(files) as scratch, stop_request() as stop:
        run, state, resumed = _begin(order, files, scratch, Worker.current(device), listener)
        try:
            if resumed is not None:
                restore(state, resumed, fingerprint=run.fingerprint, seed=run.seed)
            torch.manual_seed(_rank_seed(run.seed, run.worker.rank))
            if resumed is not None:
                restore_rank(resumed, run.worker.rank, run.sampler)
            _train(run, state, stop)
        finally:
            if run.writer is not None:
                run.writer.close()
        run.worker.barrier()


@contextmanager
def _scratch(run: StoreFiles) -> Iterator[Path]:
    """What this worker reads lies in the run itself if that is on a disk, else in a folder of the worker's own."""
    if run.local:
        yield run.folder
        return
    with tempfile.TemporaryDirectory(prefix="flightpath-run-") as scratch:
        yield Path(scratch)


def learning_rate(step: int, total: int, config: OptimizerConfig) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero at `total` (Loshchilov & Hutter, 2017)."""
    warmup = max(1, round(config.warmup_share * total))
    if step < warmup:
        return config.peak_learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return config.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _begin(
    order: TrainingOrder, files: StoreFiles, scratch: Path, worker: Worker, listener: Listener | None
) -> tuple[_Run, TrainingState, SavedCheckpoint | None]:
    recipe = get_recipe(order.recipe, order.overrides)
    family = recipe.family()
    data = _fetch(order, files, worker, scratch / "dataset")
    train, validation = (read_split(data, name) for name in SPLITS[:2])
    samples = len(next(iter(train.values())))
    steps = total_steps(recipe, samples)
    resumed, attempt, skipped = _agree_on_resume(files, scratch, order.resume, steps, worker)
    content = run_fingerprint(recipe, order.dataset_sha256)
    kept = Kept(
        run=files,
        scratch=scratch,
        attempt=attempt,
        fingerprint=content,
        seed=order.seed,
        keep=order.keep_checkpoints or recipe.keep_checkpoints,
    )
    run = _Run(
        recipe=recipe,
        family=family,
        worker=worker,
        seed=order.seed,
        skipped=tuple(skipped),
        save_every_steps=order.checkpoint_interval_steps or recipe.checkpoint_interval_steps,
        save_every_s=order.checkpoint_interval_s,
        fingerprint=content,
        sampler=Sampler(samples=samples, global_batch=recipe.global_batch, seed=order.seed),
        total_steps=steps,
        train={name: torch.from_numpy(array) for name, array in train.items()},
        validation=validation,
        baselines={figure.name: figure.value for figure in family.baselines(train, validation)},
        listener=listener if worker.rank == 0 else None,
        divergence=Divergence(worker.device),
        writer=CheckpointWriter(kept, committed_step=resumed.step if resumed else 0) if worker.rank == 0 else None,
    )
    return run, new_state(family, recipe.optimizer, seed=order.seed, device=worker.device), resumed


def run_fingerprint(recipe: Recipe, dataset_sha256: str) -> str:
    """What a checkpoint must match to be resumed: the recipe's fingerprint and the data's hash."""
    return f"{fingerprint(recipe)}-{dataset_sha256}"


def _fetch(order: TrainingOrder, files: StoreFiles, worker: Worker, target: Path) -> Path:
    """On a disk that all share the first worker fetches, then every one checks what it is about to read."""
    if files.local:
        worker.learn_from_first(lambda: str(fetch_dataset(order.dataset_uri, target, sha256=order.dataset_sha256)))
    return fetch_dataset(order.dataset_uri, target, sha256=order.dataset_sha256)


def _agree_on_resume(
    files: StoreFiles, scratch: Path, resume: str, steps: int, worker: Worker
) -> tuple[SavedCheckpoint | None, int, list[str]]:
    """Rank 0 looks, all follow: the checkpoint to resume from, this attempt's number, and what was skipped."""

    mine: list[SavedCheckpoint | None] = []

    def look() -> tuple[str | None, int, list[str]]:
        branches = Branches(files, scratch)
        found = branches.find(resume, total_steps=steps)
        mine.append(found.newest)
        name = None if found.newest is None else found.newest.folder.name
        return name, branches.begin(resume, found.newest), found.skipped

    name, attempt, skipped = worker.learn_from_first(look)
    if not mine:
        mine.append(None if name is None else Branches(files, scratch).bring(name))
    return mine[0], attempt, skipped


def _train(run: _Run, state: TrainingState, stop: StopRequest) -> None:
    model = _data_parallel(state.model, run.worker)
    started, first_step = time.monotonic(), state.step
    saved_at, polls = started, _Polls(run.worker, stop)
    report_every = max(1, run.total_steps // _REPORTS_PER_RUN)
    model.train()
    if first_step == run.total_steps:
        _tell(run, state, samples_per_s=0.0, resumed_from=first_step)
    while state.step < run.total_steps:
        loss = _step(run, state, model)
        state.step += 1
        last, stopping = state.step == run.total_steps, polls.must_stop()
        if stopping:
            stop.heed()
        saves = last or stopping or _is_save_due(run, state.step, saved_at)
        if saves or state.step % report_every == 0:
            _stop_if_diverged(run)
        if last or state.step % report_every == 0:
            _record(run, state, loss)
        if saves:
            save_checkpoint(run, state)
            saved_at = time.monotonic()
        if last or stopping:
            _finish_saving(run)
        if last or state.step % report_every == 0:
            samples = (state.step - first_step) * run.recipe.global_batch
            rate = samples / (time.monotonic() - started)
            _tell(run, state, samples_per_s=rate, resumed_from=first_step)
        if stopping and not last:
            raise RetryableError("training was asked to stop", got=f"SIGTERM, saved step {state.step}")


class _Polls:
    """Whether any worker was asked to stop: all look in the same steps, about once a second."""

    def __init__(self, worker: Worker, stop: StopRequest) -> None:
        self._worker = worker
        self._stop = stop
        self._wait_steps = 1
        self._steps = 0
        self._asked_at = time.monotonic()

    def must_stop(self) -> bool:
        if self._worker.world_size == 1:
            return self._stop.asked
        self._steps += 1
        if self._steps < self._wait_steps:
            return False
        now = time.monotonic()
        rate = self._steps / max(1e-6, now - self._asked_at)
        mine = (self._stop.asked, max(1, min(2 * self._wait_steps, round(rate * _POLL_S))))
        told = [mine] * self._worker.world_size
        distributed.all_gather_object(told, mine)
        self._steps, self._asked_at, self._wait_steps = 0, now, told[0][1]
        return any(asked for asked, _ in told)


def _stop_if_diverged(run: _Run) -> None:
    """Before anything of it is told or kept. All workers stop, since all have the same gradient."""
    found = run.divergence.found()
    if found is None:
        return
    step, loss_step = found
    mine = (run.worker.rank, loss_step)
    told = [mine] * run.worker.world_size
    if run.worker.world_size > 1:
        distributed.all_gather_object(told, mine)
    ranks = [rank for rank, at in told if at == step] or [run.worker.rank]
    what = "loss" if any(at == step for _, at in told) else "gradient"
    samples = run.sampler.rank_indices(step, rank=ranks[0], world_size=run.worker.world_size)
    raise PermanentError(
        f"{what} is not finite in step {step + 1} of rank {', '.join(map(str, ranks))}",
        got=f"training samples {samples.tolist()}",
        expected="finite numbers: a lower optimizer.peak_learning_rate, or data without NaN",
    )


def _tell(run: _Run, state: TrainingState, *, samples_per_s: float, resumed_from: int) -> None:
    if run.listener is None or run.writer is None:
        return
    run.listener(
        Progress(
            step=state.step,
            total_steps=run.total_steps,
            loss=state.curve[-1]["loss"],
            samples_per_s=samples_per_s,
            checkpoint_step=run.writer.committed_step,
            time=time.time(),
            resumed_from_step=resumed_from or None,
            skipped_checkpoints=[_named(torn) for torn in run.skipped],
        )
    )


def _is_save_due(run: _Run, step: int, saved_at: float) -> bool:
    """By steps, or by rank 0's clock."""
    if step % run.save_every_steps == 0:
        return True
    limit = run.save_every_s
    return limit is not None and run.worker.learn_from_first(lambda: time.monotonic() - saved_at >= limit)


def _named(torn: str) -> dict[str, str]:
    name, _, reason = torn.partition(": ")
    return {"name": name, "reason": reason}


def _step(run: _Run, state: TrainingState, model: torch.nn.Module) -> torch.Tensor:
    """One optimizer step; returns the mean loss over the global batch.

    Gradients are those of the sum over all workers' losses divided by their number, however unequally these are shared
    out. DDP averages what workers give, so each gives its own share of the mean as if all had as many; what that was
    wrong by is mended at the end, when all counts are known.
    """
    worker, parts = run.worker, run.recipe.accumulation
    indices = torch.from_numpy(run.sampler.rank_indices(state.step, rank=worker.rank, world_size=worker.world_size))
    for group in state.optimizer.param_groups:
        group["lr"] = group["rate_scale"] * learning_rate(state.step, run.total_steps, run.recipe.optimizer)
    state.optimizer.zero_grad(set_to_none=True)
    mine = torch.zeros(2, device=worker.device)
    for number, part in enumerate(indices.chunk(parts)):
        batch = {name: tensor[part].to(worker.device) for name, tensor in run.train.items()}
        with _gradients_kept(model, kept=number < parts - 1):
            with forward_precision(run.recipe.precision, worker.device), _own_code("loss", state.step, worker):
                total, count = run.family.loss(model, batch)
            (total / len(indices)).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        mine += torch.stack([total.detach().float(), torch.as_tensor(count, device=worker.device).float()])
    every = mine.clone()
    if worker.world_size > 1:
        distributed.all_reduce(every)
    gradients = [parameter.grad for parameter in state.model.parameters() if parameter.grad is not None]
    torch._foreach_mul_(gradients, worker.world_size * len(indices) / every[1])
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), run.recipe.optimizer.max_gradient_norm)
    state.optimizer.step()
    run.divergence.watch(state.step, mine[0], norm)
    return every[0] / every[1]


def _gradients_kept(model: torch.nn.Module, *, kept: bool) -> AbstractContextManager[None]:
    """While the block runs, gradients stay here: workers exchange them once a step."""
    return model.no_sync() if kept and isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def _own_code(what: str, step: int, worker: Worker) -> Iterator[None]:
    """A slip in a user's code, or a label out of range, is the same in every attempt. RuntimeError is left alone: that
    is how a peer's death and a lack of memory look."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as slip:
        raise PermanentError(
            f"family's {what} failed in step {step + 1} of rank {worker.rank}",
            got=f"{type(slip).__name__}: {slip}",
            expected="a loss of this batch",
        ) from slip


def _record(run: _Run, state: TrainingState, loss: torch.Tensor) -> None:
    """Add the step to the curve: its loss and, now and then, figures of the validation split."""
    entry = {
        "step": float(state.step),
        "loss": float(loss),
        "learning_rate": learning_rate(state.step - 1, run.total_steps, run.recipe.optimizer),
    }
    before = state.curve[-1]["step"] if state.curve else 0.0
    every = run.total_steps / run.recipe.validations
    due = state.step == run.total_steps or int(state.step / every) > int(before / every)
    if due and run.worker.rank == 0:
        entry |= _validate(run, state.model)
    state.curve.append(entry)


def _validate(run: _Run, model: torch.nn.Module) -> dict[str, float]:
    """`validation_<figure>` for accuracy, every figure of the judgement, and every baseline."""
    judgement = run.family.judge(predict(run.family, model, run.validation, device=run.worker.device), run.validation)
    figures = {figure.name: figure.value for figure in judgement.figures}
    return {
        f"validation_{name}": value
        for name, value in {"accuracy": judgement.accuracy, **figures, **run.baselines}.items()
    }


def save_checkpoint(run: _Run, state: TrainingState) -> None:
    """Hand a copy of everything to the first worker's writer; training goes on while it writes."""
    mine = rank_state(run.sampler, state.step)
    ranks = [mine] * run.worker.world_size
    if run.worker.world_size > 1:
        distributed.all_gather_object(ranks, mine)

    def begin() -> None:
        assert run.writer is not None
        run.writer.begin(take_snapshot(state.model, state.optimizer, state.curve), ranks, state.step)

    run.worker.learn_from_first(begin)


def _finish_saving(run: _Run) -> None:
    def finish() -> None:
        assert run.writer is not None
        run.writer.finish()

    run.worker.learn_from_first(finish)


def _data_parallel(model: torch.nn.Module, worker: Worker) -> torch.nn.Module:
    if worker.world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[worker.device.index] if worker.device.type == "cuda" else None)


def _rank_seed(seed: int, rank: int) -> int:
    """A generator of its own for each worker: their augmentations differ."""
    return int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
