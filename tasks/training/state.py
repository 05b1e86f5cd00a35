"""What training carries from step to step, how it is saved and how it comes back bit for bit."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from serving.errors import InvalidInput, PermanentError
from tasks.artifacts import Checkpoint
from tasks.data.addresses import fetch_folder
from tasks.data.sampler import Sampler
from tasks.recipes.family import Family
from tasks.recipes.recipe import OptimizerConfig
from tasks.training import checkpointing
from tasks.training.checkpointing import SavedCheckpoint


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """Weights, optimizer, position and curve of one worker."""

    model: torch.nn.Module
    """The bare model, not its data-parallel wrapper."""
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps done."""
    curve: list[dict[str, float]] = field(default_factory=list)


def new_state(family: Family, config: OptimizerConfig, *, seed: int, device: torch.device) -> TrainingState:
    """Fresh weights from `seed`, equal in every worker."""
    torch.manual_seed(seed)
    model = family.build_model().to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, config), lr=config.peak_learning_rate, betas=(0.9, config.second_moment_decay)
    )
    return TrainingState(model=model, optimizer=optimizer)


def parameter_groups(model: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """AdamW's groups: `params`, their `weight_decay`, and `rate_scale`, which the loop multiplies the rate by."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        scale = next((scale for prefix, scale in config.rate_scales if name.startswith(prefix)), 1.0)
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_scale": scale}
        for (scale, decay), parameters in groups.items()
    ]


def restore(state: TrainingState, saved: SavedCheckpoint, *, fingerprint: str, seed: int) -> None:
    """Load a verified checkpoint into `state`.

    Raises:
        InvalidInput: it was made by another recipe, data set or seed.
    """
    for what, got, expected in (("recipe", saved.fingerprint, fingerprint), ("seed", saved.seed, seed)):
        if got != expected:
            raise InvalidInput(f"checkpoint {saved.folder.name} is of another {what}", got=got, expected=expected)
    try:
        state.model.load_state_dict(checkpointing.read_model(saved.folder))
        state.optimizer.load_state_dict(checkpointing.read_optimizer(saved.folder))
    except (RuntimeError, ValueError, KeyError) as unfit:
        raise PermanentError(f"checkpoint {saved.folder.name} does not fit the model ({unfit})") from unfit
    state.step = saved.step
    state.curve = checkpointing.read_curve(saved.folder)


def rank_state(sampler: Sampler, step: int) -> dict[str, Any]:
    """This worker's part of a checkpoint: position in the data and random generators."""
    generators = {"cpu": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()}
    if torch.cuda.is_available():
        generators["cuda"] = base64.b64encode(torch.cuda.get_rng_state().numpy().tobytes()).decode()
    return {"sampler": sampler.state(step), "rng": generators}


def restore_rank(saved: SavedCheckpoint, rank: int, sampler: Sampler) -> None:
    """Put this worker where it was. A worker that the checkpoint did not know keeps its fresh generator."""
    known = checkpointing.read_rank(saved.folder, rank)
    if known is None:
        return
    sampler.check_state(known["sampler"], step=saved.step)
    torch.set_rng_state(_generator(known["rng"]["cpu"]))
    if torch.cuda.is_available() and "cuda" in known["rng"]:
        torch.cuda.set_rng_state(_generator(known["rng"]["cuda"]))


def _generator(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def load_model(family: Family, checkpoint: Checkpoint, target: Path) -> torch.nn.Module:
    """Fetch a checkpoint to `target`, verify it, and return its model in evaluation mode on the CPU.

    Raises:
        PermanentError: the checkpoint is damaged, or not the one that the artifact names.
    """
    fetch_folder(checkpoint.uri, target, marker=checkpointing.MANIFEST)
    saved = checkpointing.verify_checkpoint(target)
    if saved.sha256 != checkpoint.sha256:
        raise PermanentError("checkpoint has a wrong SHA-256", got=saved.sha256, expected=checkpoint.sha256)
    model = family.build_model()
    model.load_state_dict(checkpointing.read_model(target))
    return model.eval()
