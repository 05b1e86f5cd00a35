"""Checkpoints that are whole or do not count.

`<run>/step-<n>-a<attempt>/` holds `model.safetensors`, `optimizer.pt`, `curve.json` and one
`rank-<r>.json` per worker. `manifest.json` is written last, whole or not at all, with the SHA-256 of each
file, so a folder without it, or with a file that differs, is no checkpoint: it is skipped and named. The
manifest holds content only (no time, no attempt), so equal training gives equal manifests.

The run may lie at any address: the first worker writes all files, and no store needs a rename.
"""

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from serving.bundle import check_relative_path, hash_file
from serving.errors import CorruptBundle, PermanentError
from serving.files import canonical_json
from serving.store_files import StoreFiles

MANIFEST: Final = "manifest.json"
MODEL: Final = "model.safetensors"
OPTIMIZER: Final = "optimizer.pt"
CURVE: Final = "curve.json"
SCHEMA_VERSION: Final = 1
FOLDER: Final = re.compile(r"step-(\d+)-a(\d+)")
_BLOCK_BYTES: Final = 8 * 1024 * 1024


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


def checkpoint_name(step: int, attempt: int) -> str:
    return f"step-{step}-a{attempt}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A copy of what training changes, on the CPU: it can be written while training goes on."""

    weights: dict[str, torch.Tensor]
    aliases: dict[str, str]
    """Other names of the same weights."""
    optimizer: dict[str, Any]
    curve: list[dict[str, float]]


def take_snapshot(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, curve: Sequence[dict[str, float]]
) -> Snapshot:
    """Raises PermanentError where a weight is not finite."""
    _check_finite(model)
    weights, aliases = _without_aliases(model.state_dict())
    return Snapshot(weights=weights, aliases=aliases, optimizer=_copied(optimizer.state_dict()), curve=list(curve))


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value


def _check_finite(model: torch.nn.Module) -> None:
    """Parameters only: a buffer may hold infinities on purpose, as a mask does."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise PermanentError("weights are not finite", got=name, expected="finite numbers")


def _without_aliases(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Copies on the CPU, and the names under which the same ones go as well (tied weights)."""
    weights: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in owners:
            aliases[name] = owners[place]
            continue
        owners[place] = name
        weights[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return weights, aliases


def write_checkpoint(
    run: StoreFiles,
    name: str,
    snapshot: Snapshot,
    ranks: Sequence[dict[str, Any]],
    *,
    step: int,
    fingerprint: str,
    seed: int,
) -> str:
    """Write every file and, when all are durable, the manifest. Returns the manifest's SHA-256.

    Args:
        ranks: each worker's own state (sampler, random generators), by rank.
    """
    files, digests = run.within(name), {}
    for file, content in _contents(snapshot, ranks):
        digests[file] = hashlib.sha256(content).hexdigest()
        _put(files, file, content)
    manifest = canonical_json(
        {
            "schema_version": SCHEMA_VERSION,
            "step": step,
            "fingerprint": fingerprint,
            "seed": seed,
            "world_size": len(ranks),
            "files": digests,
        }
    )
    files.write(MANIFEST, manifest)
    return hashlib.sha256(manifest).hexdigest()


def _contents(snapshot: Snapshot, ranks: Sequence[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """One after the other, so that only one is in memory beside the snapshot."""
    yield MODEL, save_tensors(snapshot.weights, metadata=snapshot.aliases or None)
    buffer = io.BytesIO()
    torch.save(snapshot.optimizer, buffer)
    yield OPTIMIZER, buffer.getvalue()
    yield CURVE, canonical_json(snapshot.curve)
    for rank, state in enumerate(ranks):
        yield f"rank-{rank}.json", canonical_json(state)


def _put(files: StoreFiles, name: str, content: bytes) -> None:
    whole = memoryview(content)
    blocks = (bytes(whole[at : at + _BLOCK_BYTES]) for at in range(0, len(content), _BLOCK_BYTES))
    files.put(name, blocks, size_bytes=len(content), block_bytes=_BLOCK_BYTES)


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
        match = FOLDER.fullmatch(folder.name)
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
