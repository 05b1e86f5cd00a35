"""A LoRA adapter becomes a plain checkpoint: its low-rank update is added to the base model's weights.

W' = W + (alpha / r) B A (Hu et al., 2021, https://arxiv.org/abs/2106.09685); with rank-stabilised
scaling alpha / sqrt(r) (Kalajdzievski, 2023). Merged, a version stays one model server with one weight
in the gateway, and rolls back like any other.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from serving.errors import InvalidInput
from serving.files import write_atomically
from tasks.intake.source import Source

_PREFIX: Final = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_MAX_CONFIG_BYTES: Final = 1024 * 1024


def merge_adapter(adapter: Source, base: Source, target: Path) -> list[str]:
    """Copy `base` to `target` with the adapter added to its weights; returns the files.

    Raises:
        InvalidInput: the adapter is more than low-rank updates (DoRA, bias, saved modules), or does not fit the base.
    """
    config = _config(adapter.path / "adapter_config.json")
    updates = _updates(adapter.path / "adapter_model.safetensors", config)
    target.mkdir(parents=True, exist_ok=True)
    for name in base.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            _merge_file(base.path / name, target / name, updates)
        else:
            shutil.copyfile(base.path / name, target / name)
    if updates:
        raise InvalidInput("adapter changes weights that the base lacks", got=sorted(updates)[:4], expected="its base")
    return base.files


def _config(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    if len(content) > _MAX_CONFIG_BYTES:
        raise InvalidInput(
            "adapter_config.json is too large", got=len(content), expected=f"<= {_MAX_CONFIG_BYTES} bytes"
        )
    try:
        config: dict[str, Any] = json.loads(content)
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError) as broken:
        raise InvalidInput("adapter_config.json cannot be read", got=repr(broken), expected="a LoRA config") from broken
    more = {
        name: config.get(name)
        for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
        if config.get(name)
    }
    if more or config.get("bias", "none") != "none" or rank < 1:
        raise InvalidInput(
            "adapter is no plain LoRA", got=more or {"bias": config.get("bias"), "r": rank}, expected="r, lora_alpha"
        )
    return {"scale": alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)}


def _updates(path: Path, config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The update of each weight by the base model's name for it, shape (out, in)."""
    updates: dict[str, NDArray[np.float32]] = {}
    with safe_open(path, framework="pt") as tensors:
        names = set(tensors.keys())
        unknown = [name for name in names if not name.endswith((_A, _B)) or not name.startswith(_PREFIX)]
        if unknown:
            raise InvalidInput("adapter holds more than low-rank updates", got=sorted(unknown)[:4], expected=f"*{_A}")
        for name in sorted(name for name in names if name.endswith(_A)):
            other = name.removesuffix(_A) + _B
            if other not in names:
                raise InvalidInput("adapter lacks one half of an update", got=name, expected=other)
            low, high = (tensors.get_tensor(half).float().numpy() for half in (name, other))
            updates[name.removeprefix(_PREFIX).removesuffix(_A) + ".weight"] = config["scale"] * (high @ low)
    return updates


def _merge_file(source: Path, target: Path, updates: dict[str, NDArray[np.float32]]) -> None:
    """Write one weights file with its updates added; those used are taken out of `updates`."""
    merged: dict[str, NDArray[Any]] = {}
    with safe_open(source, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # a safetensors file is no mapping
            weight = tensors.get_tensor(name)
            if name in updates:
                update = updates.pop(name)
                if tuple(update.shape) != tuple(weight.shape):
                    raise InvalidInput(
                        f"adapter does not fit {name}", got=list(update.shape), expected=list(weight.shape)
                    )
                merged[name] = weight.float().numpy() + update
            else:
                merged[name] = weight.float().numpy()
    write_atomically(target, save(merged, metadata={"format": "pt"}))
