"""Checkpoints that are whole or do not count.

`<run>/step-<n>-a<attempt>/` holds `model.safetensors`, `optimizer.pt`, `curve.json` and one
`rank-<r>.json` per worker. `manifest.json` is written last, by rename, with the SHA-256 of each file,
so a folder without it, or with a file that differs, is no checkpoint: it is skipped and named. The
manifest holds content only (no time, no attempt), so equal training gives equal manifests.

Holds for a file system that every worker shares. It stops holding where rename is not atomic.
"""

import hashlib
import io
import json
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from serving.bundle import check_relative_path, hash_file
from serving.errors import CorruptBundle, PermanentError
from serving.files import canonical_json, sync_folder, write_atomically

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"
CURVE: Final = "curve.json"
SCHEMA_VERSION: Final = 1
_FOLDER: Final = re.compile(r"step-(\d+)-a(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedCheckpoint:
    """A checkpoint whose every file matched its manifest."""

    folder: Path
    step: int
    """Optimizer steps done."""
    attempt: int
    sha256: str
    """Of manifest.json."""
    fingerprint: str
    """Of the recipe (`tasks.recipes.recipe.fingerprint`)."""
    seed: int
    world_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a run folder holds."""

    newest: SavedCheckpoint | None
    skipped: list[str] = field(default_factory=list)
    """`<folder name>: <why it is no checkpoint>`, newest first; only those newer than `newest`."""
    attempts: int = 0
    """Highest attempt seen, torn ones included."""


def checkpoint_name(step: int, attempt: int) -> str:
    return f"step-{step}-a{attempt}"


def write_model(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, curve: Any) -> None:
    """Rank 0's files, each whole and on the disk before this returns.

    Raises:
        PermanentError: a weight is not finite: nothing is written.
    """
    _check_finite(model)
    weights, aliases = _without_aliases(model.state_dict())
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    write_atomically(folder / MODEL, save_tensors(weights, metadata=aliases or None))
    write_atomically(folder / OPTIMIZER, buffer.getvalue())
    write_atomically(folder / CURVE, canonical_json(curve))


def _check_finite(model: torch.nn.Module) -> None:
    """Parameters only: a buffer may hold infinities on purpose, as a mask does."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise PermanentError("weights are not finite", got=name, expected="finite numbers")


def _without_aliases(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors on the CPU that share no memory, and the names under which the same ones go as well (tied weights)."""
    weights: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    storages: set[int] = set()
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in owners:
            aliases[name] = owners[place]
            continue
        owners[place] = name
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        # A view of another one's memory is the format's to keep only as a copy.
        weights[name] = kept.clone() if storage in storages else kept
        storages.add(storage)
    return weights, aliases


def write_rank(folder: Path, rank: int, state: dict[str, Any]) -> None:
    """One worker's own state (sampler, random generators)."""
    write_atomically(folder / f"rank-{rank}.json", canonical_json(state))


def commit(folder: Path, *, step: int, fingerprint: str, seed: int, world_size: int) -> str:
    """Make the folder a checkpoint, once every worker has written its file. Returns the manifest's SHA-256."""
    names = [MODEL, OPTIMIZER, CURVE, *(f"rank-{rank}.json" for rank in range(world_size))]
    manifest = canonical_json(
        {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "fingerprint": fingerprint,
            "seed": seed,
            "world_size": world_size,
            "files": {name: hash_file(folder / name) for name in names},
        }
    )
    write_atomically(folder / MANIFEST, manifest)
    sync_folder(folder.parent)
    return hashlib.sha256(manifest).hexdigest()


def verify_checkpoint(folder: Path) -> SavedCheckpoint:
    """Read a checkpoint's manifest and check every file against it.

    Raises:
        PermanentError: it is torn or damaged; the message names the file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise PermanentError("no manifest", got=folder.name, expected=MANIFEST)
    content = path.read_bytes()
    try:
        raw = json.loads(content)
        files = {str(name): str(digest) for name, digest in raw["files"].items()}
        match = _FOLDER.fullmatch(folder.name)
        saved = SavedCheckpoint(
            folder=folder,
            step=int(raw["step"]),
            attempt=int(match[2]) if match else 0,
            sha256=hashlib.sha256(content).hexdigest(),
            fingerprint=str(raw["fingerprint"]),
            seed=int(raw["seed"]),
            world_size=int(raw["world_size"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise PermanentError(f"{MANIFEST} cannot be read", got=repr(broken), expected="a manifest") from broken
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise PermanentError(
            f"{MANIFEST} has an unknown schema_version", got=raw.get("schema_version"), expected=SCHEMA_VERSION
        )
    for name, digest in files.items():
        _check_file(folder, name, digest)
    return saved


def _check_file(folder: Path, name: str, digest: str) -> None:
    try:
        check_relative_path(name)
    except CorruptBundle as outside:
        raise PermanentError(f"{MANIFEST} names a file outside", got=name, expected="a file name") from outside
    if not (folder / name).is_file():
        raise PermanentError(f"{name} is missing", got=folder.name, expected=name)
    if (found := hash_file(folder / name)) != digest:
        raise PermanentError(f"{name} has a wrong SHA-256", got=found, expected=digest)


def find_latest_verified(run_folder: Path, *, at_step: int | None = None) -> Found:
    """The newest whole checkpoint (or the newest of step `at_step`), and what was skipped on the way to it."""
    skipped: list[str] = []
    folders = _folders(run_folder)
    attempts = max((attempt for _, attempt, _ in folders), default=0)
    for step, _, folder in sorted(folders, reverse=True):
        if at_step is not None and step != at_step:
            continue
        try:
            return Found(newest=verify_checkpoint(folder), skipped=skipped, attempts=attempts)
        except PermanentError as torn:
            skipped.append(f"{folder.name}: {torn}")
    return Found(newest=None, skipped=skipped, attempts=attempts)


def remove_old(run_folder: Path, *, keep: int, newest: SavedCheckpoint) -> list[str]:
    """Delete checkpoints older than the `keep` newest steps, and torn ones older than `newest`.

    Each folder loses its manifest first, so a deletion cut short leaves no half checkpoint that counts.
    Returns the names removed.
    """
    whole = [(step, attempt) for step, attempt, folder in _folders(run_folder) if (folder / MANIFEST).is_file()]
    kept = set(sorted((entry for entry in whole if entry[0] <= newest.step), reverse=True)[:keep])
    removed = []
    for step, attempt, folder in _folders(run_folder):
        if (step, attempt) in kept or step >= newest.step:
            continue
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
        removed.append(folder.name)
    return sorted(removed)


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """Weights by name, on the CPU."""
    with safe_open(folder / MODEL, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        aliases = file.metadata() or {}
    return weights | {alias: weights[name] for alias, name in aliases.items()}


def read_optimizer(folder: Path) -> dict[str, Any]:
    """The optimizer's state, on the CPU; never unpickles code."""
    try:
        state: dict[str, Any] = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as refused:
        raise PermanentError(f"{OPTIMIZER} cannot be read", got=str(refused), expected="tensors only") from refused
    return state


def read_curve(folder: Path) -> list[dict[str, float]]:
    """The training curve up to the checkpoint: one entry per logged step."""
    curve: list[dict[str, float]] = json.loads((folder / CURVE).read_bytes())
    return curve


def read_rank(folder: Path, rank: int) -> dict[str, Any] | None:
    """A worker's own state, or None where the checkpoint had fewer workers."""
    path = folder / f"rank-{rank}.json"
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_bytes())
    return state


def _folders(run_folder: Path) -> list[tuple[int, int, Path]]:
    """(step, attempt, folder) of everything that is named like a checkpoint."""
    if not run_folder.is_dir():
        return []
    named = ((_FOLDER.fullmatch(path.name), path) for path in run_folder.iterdir() if path.is_dir())
    return [(int(match[1]), int(match[2]), path) for match, path in named if match]
