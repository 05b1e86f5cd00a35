"""A stranger's recipe from data to a served bundle: its golden set passes its gates on a real model server."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from serving.bundle import TensorSpec, read_manifest
from serving.credentials import SigningKey
from serving.errors import CorruptBundle
from serving.regions.deciding.gates import PASSED
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.golden.check import check_golden, load_golden
from serving.regions.golden.inputs import CLASSIFICATION, GoldenInputs
from serving.store import ArtifactStore
from tasks.artifacts import ReleasePlan
from tasks.compression.bundling import build_bundle
from tasks.compression.stage import compress
from tasks.data.stage import prepare
from tasks.evaluation.stage import evaluate
from tasks.recipes.finding import get_recipe
from tasks.training.launch import inprocess
from tasks.training.stage import train
from tests.fakes.models import end_process, start_model_server, wait_until_ready
from tests.fakes.ports import free_port


@pytest.mark.parametrize(
    ("name", "beats"),
    [
        ("masked_text", "majority_class_accuracy"),
        ("tied_text", "majority_class_accuracy"),
        ("houses", "mean_accuracy"),
    ],
)
def test_a_strangers_recipe_is_served(name: str, beats: str, tmp_path: Path) -> None:
    recipe, store = get_recipe(f"tests.fakes.strangers:{name}"), ArtifactStore((tmp_path / "store").as_uri())
    dataset = prepare(recipe, 1, store)
    run = str(tmp_path / "run")
    checkpoint = train(recipe, dataset, seed=1, workers=1, store=store, run=run, launch=inprocess.launch)
    evaluation = evaluate(recipe, dataset, checkpoint, store)
    baseline = next(figure.value for figure in evaluation.figures if figure.name == beats)
    assert evaluation.accuracy > baseline + 0.2
    compressed = compress(recipe, dataset, checkpoint, evaluation, store)
    plan = ReleasePlan(
        release_id="r-1", recipe=recipe.reference, seed=1, store_uri=store.uri, regions=["us-east"],
        code_version="c", data_hash="d", recipe_sources=recipe.sources,
    )  # fmt: skip
    key = SigningKey.ensure(tmp_path / "keys")
    bundle = build_bundle(recipe, plan, compressed, evaluation, store, key, {"commit": "abc"})
    folder = store.fetch_bundle(bundle.digest, tmp_path / "bundle")
    port = free_port()
    server = start_model_server(folder, port=port, model=recipe.name, variant=compressed.chosen_variant)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready", server)
        golden = load_golden(folder, read_manifest(folder))
        gates = asyncio.run(check_golden(golden, f"http://127.0.0.1:{port}", recipe.name, PromotionPolicy()))
        assert [gate.status for gate in gates] == [PASSED, PASSED], gates
        assert golden is not None
        path, body = golden.requests(recipe.name)[0]
        assert httpx.post(f"http://127.0.0.1:{port}{path}", json=body, trust_env=False).status_code == 200
    finally:
        end_process(server)


def test_a_golden_set_whose_one_column_is_always_the_highest_is_refused(tmp_path: Path) -> None:
    one = np.ones((4, 1), dtype=np.float32)
    save_file({"inputs": one, "labels": np.zeros(4, dtype=np.int64), "reference": one}, tmp_path / "golden")
    with pytest.raises(CorruptBundle, match="two classes or more"):
        GoldenInputs.load(
            tmp_path / "golden", (TensorSpec(name="x", datatype="FP32", shape=[-1, 1]),), 1.0, CLASSIFICATION
        )
