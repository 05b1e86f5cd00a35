"""The model server process: what it answers, how it ends, and that a wrong bundle never serves."""

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.bundle import Manifest, TensorSpec, read_manifest
from serving.engines.server import open_engine
from serving.errors import CorruptBundle, InvalidInput
from tests.fakes.gateways import infer_body
from tests.fakes.models import VARIANT, end_process, linear_weights, start_model_server, wait_until_ready
from tests.fakes.models import write_bundle as write_linear_bundle
from tests.fakes.ports import free_port


@dataclass(frozen=True, kw_only=True)
class Running:
    process: subprocess.Popen[bytes]
    http: httpx.Client


def write_bundle(root: Path) -> Path:
    write_linear_bundle(root / "bundle", root / "keys")
    return root / "bundle"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    process = start_model_server(
        write_bundle(tmp_path_factory.mktemp("engine")), port=port, version="4", extra=("--max-batch", "4")
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/v2/health/ready", process)
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            yield Running(process=process, http=http)
    finally:
        end_process(process)


def test_it_computes_what_the_model_computes_below_and_above_a_batch(engine: Running) -> None:
    weights, bias = linear_weights(0)
    for rows in (1, 4, 11):
        x = np.array(json.loads(infer_body(rows))["inputs"][0]["data"], dtype=np.float32).reshape(rows, 64)
        document = engine.http.post("/v2/models/digits/infer", content=infer_body(rows)).json()
        (output,) = document["outputs"]
        assert (document["model_name"], document["model_version"]) == ("digits", "4")
        assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [rows, 10])
        np.testing.assert_allclose(np.reshape(output["data"], (rows, 10)), x @ weights + bias, rtol=1e-4, atol=1e-5)


def test_it_tells_about_itself(engine: Running) -> None:
    assert engine.http.get("/v2/models/digits").json() == {
        "name": "digits",
        "versions": ["4"],
        "platform": "onnx_onnxruntime",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
        assert engine.http.get(path).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/digits/infer", b"no json", 400),
        ("/v2/models/other/infer", b"{}", 404),
        ("/v2/models/digits/infer", b"x" * (16 * 1024 * 1024 + 1), 413),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(engine: Running, path: str, body: bytes, status: int) -> None:
    response = engine.http.post(path, content=body)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "got", "expected", "retryable"}


def test_prometheus_reads_requests_latency_and_batch_sizes(engine: Running) -> None:
    engine.http.post("/v2/models/digits/infer", content=infer_body(3))
    engine.http.post("/v2/models/digits/infer", content=b"no json")
    text = engine.http.get("/metrics").text
    for expected in (
        'flightpath_engine_requests_total{code="200",model="digits",version="4"}',
        'flightpath_engine_requests_total{code="400",model="digits",version="4"}',
        "flightpath_engine_request_seconds_bucket",
        "flightpath_engine_batch_rows_sum",
    ):
        assert expected in text


def test_sigterm_ends_it_with_exit_code_0(tmp_path: Path) -> None:
    port = free_port()
    process = start_model_server(write_bundle(tmp_path), port=port)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        end_process(process)


def fail_to_start(bundle: Path, port: int) -> str:
    """The one line that a server which cannot start leaves."""
    process = start_model_server(bundle, port=port)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    (line,) = errors.decode().splitlines()
    return line


def test_a_bundle_that_was_tampered_with_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    assert fail_to_start(bundle, free_port()).startswith("error: model.onnx has a wrong SHA-256, got ")


def test_a_taken_port_is_one_line_and_exit_code_1(tmp_path: Path, busy_port: int) -> None:
    assert fail_to_start(write_bundle(tmp_path), busy_port) == (
        f"error: port is taken, got {busy_port}, expected a free port"
    )


def rewrite(bundle: Path, **changes: Any) -> None:
    """Change the manifest only; its own files stay as they are."""
    manifest = read_manifest(bundle)
    fields = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    (bundle / "manifest.json").write_bytes(Manifest(**{**fields, **changes}).to_bytes())


@pytest.mark.parametrize(
    "promised",
    [
        TensorSpec(name="other", datatype="FP32", shape=[-1, 64]),
        TensorSpec(name="x", datatype="INT8", shape=[-1, 64]),
        TensorSpec(name="x", datatype="FP32", shape=[-1, 8, 8]),
    ],
)
def test_a_manifest_that_disagrees_with_its_model_is_refused(tmp_path: Path, promised: TensorSpec) -> None:
    bundle = write_bundle(tmp_path)
    rewrite(bundle, inputs=[promised])
    with pytest.raises(CorruptBundle, match="disagree about the inputs"):
        open_engine(bundle, VARIANT, threads=1)


def test_a_model_that_cannot_run_on_its_promised_shape_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    rewrite(bundle, inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 65])])
    with pytest.raises(CorruptBundle, match="model does not run"):
        open_engine(bundle, VARIANT, threads=1)


def test_an_unknown_variant_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"got fp64, expected {VARIANT}"):
        open_engine(write_bundle(tmp_path), "fp64", threads=1)
