"""What the demo's users ask follows from the data and from what the gateway tells of the model's inputs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from safetensors.numpy import save_file

from flightpath.local.questions import Unanswered, example, questions_for
from serving.bundle import TensorSpec

LABELS = np.array([1, 0, 1], dtype=np.int64)
FIRST = TensorSpec(name="tokens", datatype="INT64", shape=[-1, 2])
SECOND = TensorSpec(name="mask", datatype="FP32", shape=[-1, 2])


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    arrays = {"tokens": np.array([[1, 2], [3, 4], [5, 6]]), "mask": np.ones((3, 2), dtype=np.float32), "labels": LABELS}
    save_file(arrays, tmp_path / "test.safetensors")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["benign", "malignant"]}))
    return tmp_path


@asynccontextmanager
async def gateway(*inputs: TensorSpec) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """Answers `malignant` to everything; its address, and what it was asked."""
    asked: list[tuple[str, Any]] = []

    async def metadata(request: web.Request) -> web.Response:
        return web.json_response({"inputs": [{"name": spec.name, "datatype": spec.datatype} for spec in inputs]})

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, await request.json()))
        if request.path == "/v1/predict":
            return web.json_response({"predictions": [{"label": "malignant"}], "feedback_token": "t"})
        return web.json_response({"outputs": [{"data": [0.1, 0.9]}]}, headers={"x-flightpath-feedback": "t"})

    app = web.Application()
    app.add_routes([web.get("/v2/models/m", metadata), web.post("/{path:.*}", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert site._server is not None
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", asked  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


async def test_one_input_is_asked_both_ways_and_judged_by_its_label(dataset: Path) -> None:
    async with gateway(FIRST) as (url, asked), aiohttp.ClientSession() as http:
        questions = questions_for(dataset, "m", start=0)
        correct = [(await questions.ask(http, url)).correct for _ in range(3)]
    assert correct == [True, False, True]
    questions_asked = [(path, body) for path, body in asked if path != "/v1/feedback"]
    assert questions_asked[0] == ("/v1/predict", {"model": "m", "inputs": [[1, 2]]})
    tensor = {"name": "tokens", "shape": [1, 2], "datatype": "INT64", "data": [3, 4]}
    assert questions_asked[1] == ("/v2/models/m/infer", {"inputs": [tensor]})
    assert [body for path, body in asked if path == "/v1/feedback"] == [
        {"token": "t", "labels": [int(label)]} for label in LABELS
    ]


async def test_several_inputs_are_asked_by_their_names(dataset: Path) -> None:
    async with gateway(FIRST, SECOND) as (url, asked), aiohttp.ClientSession() as http:
        await questions_for(dataset, "m", start=1).ask(http, url)
    path, body = asked[0]
    assert path == "/v2/models/m/infer"
    assert [(tensor["name"], tensor["data"]) for tensor in body["inputs"]] == [("tokens", [3, 4]), ("mask", [1.0, 1.0])]


async def test_data_without_the_models_input_is_said(dataset: Path) -> None:
    other = TensorSpec(name="pixels", datatype="FP32", shape=[-1, 2])
    async with gateway(other) as (url, _), aiohttp.ClientSession() as http:
        with pytest.raises(Unanswered, match="held-out data lacks pixels"):
            await questions_for(dataset, "m", start=0).ask(http, url)


def test_the_example_goes_where_its_inputs_are_taken(dataset: Path) -> None:
    assert example(dataset, "m", [FIRST]).path == "/v1/predict"
    several = example(dataset, "m", [FIRST, SECOND])
    assert (several.path, len(several.body["inputs"])) == ("/v2/models/m/infer", 2)  # type: ignore[arg-type]
