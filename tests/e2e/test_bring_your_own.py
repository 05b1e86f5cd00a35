"""Models that were never trained here, promoted as their owners would: one command, then they serve."""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from tests.e2e.conftest import FirstRelease, World
from tests.fakes.language_models import write_llama
from tests.fakes.models import CLASSES, FEATURES, linear_model, linear_weights

pytestmark = pytest.mark.timeout(900)

_RANK, _HIDDEN = 4, 64
_POLICY = json.dumps(
    {
        "preset": "language-models",
        "steps_percent": [100],
        "bake_s": 0,
        "required_gates": [],
        "watch_s": 0,
    }
)


def _promote(world: World, source: Path, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    order = ["--source", str(source), "--model", model, "--regions", '["us-east"]', "--policy", _POLICY]
    return world.pyflyte("run", "workflows/promotion.py", "promote", *order, *arguments)


def _ask(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The answer, and the region that gave it."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read()), response.headers.get("x-flightpath-region")


@pytest.mark.parametrize("asked", [0, 1], ids=["where it runs", "routed from another region"])
def test_an_onnx_file_serves_what_it_computes(
    world: World, first_release: FirstRelease, tmp_path: Path, asked: int
) -> None:
    onnx.save(linear_model(3), str(tmp_path / "model.onnx"))
    done = _promote(world, tmp_path / "model.onnx", "my-linear", "--make_golden")
    assert done.returncode == 0, done.stdout + done.stderr
    row = np.linspace(-1, 1, FEATURES, dtype=np.float32)
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": row.tolist()}
    answer, region = _ask(f"{world.gateway(asked)}/v2/models/my-linear/infer", {"inputs": [tensor]})
    weights, bias = linear_weights(3)
    logits = answer["outputs"][0]
    assert logits["shape"] == [1, CLASSES]
    np.testing.assert_allclose(logits["data"], row @ weights + bias, rtol=1e-4)
    assert region == "us-east"


def _adapter(folder: Path) -> Path:
    """Low-rank updates of every query projection that the tiny Llama has."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": _RANK, "lora_alpha": 8}))
    random, halves = np.random.default_rng(0), {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        halves[f"{name}.lora_A.weight"] = random.normal(size=(_RANK, _HIDDEN)).astype(np.float32)
        halves[f"{name}.lora_B.weight"] = random.normal(size=(_HIDDEN, _RANK)).astype(np.float32)
    save_file(halves, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_over_a_checkpoint_serves_in_vllm(world: World, first_release: FirstRelease, tmp_path: Path) -> None:
    write_llama(tmp_path / "base", hidden=_HIDDEN)
    (tmp_path / "texts.txt").write_text("The first text is about aeroplanes.\n\nThe second is about the open sea.\n")
    golden = ["--golden", str(tmp_path / "texts.txt")]
    done = _promote(world, _adapter(tmp_path / "adapter"), "my-llm", "--base", str(tmp_path / "base"), *golden)
    assert done.returncode == 0, done.stdout + done.stderr
    body = {"model": "my-llm", "prompt": "import ", "max_tokens": 3, "ignore_eos": True}
    answer, region = _ask(f"{world.gateway(0)}/v1/completions", body)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3
    assert region == "us-east"


def test_an_adapter_without_its_base_is_refused_in_one_line(
    world: World, first_release: FirstRelease, tmp_path: Path
) -> None:
    done = _promote(world, _adapter(tmp_path / "adapter"), "my-llm")
    assert done.returncode == 1
    assert "flightpath: a LoRA adapter needs its base model, got no base, expected --base FOLDER" in done.stderr
