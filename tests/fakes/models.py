"""Tiny real ONNX models in sealed bundles, and the real processes that serve them."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.bundle import Attestation, GoldenSet, Manifest, TensorSpec, Variant, describe_file, seal
from serving.credentials import SigningKey

FEATURES = 64
CLASSES = 10
VARIANT = "onnxruntime-cpu"


def linear_weights(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [64, 10] and bias [10] of the tiny classifier."""
    random = np.random.default_rng(seed)
    return (
        random.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        random.normal(size=CLASSES).astype(np.float32),
    )


def linear_model(seed: int) -> onnx.ModelProto:
    """logits = x @ W + b, batch dimension dynamic."""
    weights, bias = linear_weights(seed)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["xW"]), helper.make_node("Add", ["xW", "b"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_bundle(
    root: Path, keys: Path, *, seed: int = 0, name: str = "digits", golden: GoldenSet | None = None
) -> str:
    """A sealed bundle of the linear model at `root`; returns its digest."""
    root.mkdir(parents=True, exist_ok=True)
    onnx.save(linear_model(seed), str(root / "model.onnx"))
    manifest = Manifest(
        name=name,
        family="linear",
        inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, FEATURES])],
        outputs=[TensorSpec(name="logits", datatype="FP32", shape=[-1, CLASSES])],
        variants=[
            Variant(name=VARIANT, runtime="onnxruntime", entry="model.onnx", files=[describe_file(root, "model.onnx")])
        ],
        classes=[str(digit) for digit in range(CLASSES)],
        golden=golden,
    )
    attestation = Attestation(bundle_name=name, bundle_digest=manifest.digest, lineage={}, measurements=[])
    return seal(root, manifest, attestation, SigningKey.ensure(keys))


def start_model_server(
    bundle: Path,
    *,
    port: int,
    model: str = "digits",
    version: str = "1",
    variant: str = VARIANT,
    extra: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    """A model server process; call `wait_until_ready` before using it."""
    command = [sys.executable, "-m", "serving.engines.server", "--model", model, "--version", version]
    command += ["--bundle", str(bundle), "--variant", variant, "--port", str(port), *extra]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], *, timeout_s: float = 30.0) -> None:
    """Poll until `url` answers 200; an exited process is an error with its stderr."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = process.stderr.read().decode() if process.stderr else ""
            raise AssertionError(f"process exited with {process.returncode}: {output}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise AssertionError(f"{url} was not ready within {timeout_s} s")


def end_process(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL if it still runs, and reap it."""
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stderr:
        process.stderr.close()
