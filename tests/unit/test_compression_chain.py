"""From checkpoint to bundle, with real ONNX Runtime: the same bytes each time, accurate, refused when damaged."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from examples.recipe import classifier
from serving.bundle import verify_bundle
from serving.credentials import SigningKey, trusted_keys
from serving.errors import CorruptBundle, PermanentError
from serving.store import ArtifactStore, bundle_path
from tasks.artifacts import Checkpoint, CompressedModel, Dataset, Evaluation, ReleasePlan
from tasks.compression.bundling import build_bundle
from tasks.compression.plots import compression_page
from tasks.compression.stage import compress
from tasks.data.stage import prepare
from tasks.evaluation.plots import evaluation_page
from tasks.evaluation.stage import evaluate
from tasks.families.classifier import Classifier
from tasks.recipes.data_source import Split
from tasks.recipes.family import Judgement
from tasks.recipes.finding import get_recipe
from tasks.recipes.recipe import Recipe
from tasks.training.launch import inprocess
from tasks.training.stage import train

EXAMPLE = "examples.recipe:breast_cancer"


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything that the stages made of one recipe."""

    recipe: Recipe
    store: ArtifactStore
    dataset: Dataset
    checkpoint: Checkpoint
    evaluation: Evaluation
    compressed: CompressedModel


@pytest.fixture(scope="module", params=[EXAMPLE, "tests.fakes.tiny_recipe:tiny_digits"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("chain")
    recipe, store = get_recipe(request.param), ArtifactStore((root / "store").as_uri())
    dataset = prepare(recipe, 1, store)
    checkpoint = train(recipe, dataset, seed=1, workers=1, store=store, run=str(root / "run"), launch=inprocess.launch)
    evaluation = evaluate(recipe, dataset, checkpoint, store)
    compressed = compress(recipe, dataset, checkpoint, evaluation, store)
    return Made(
        recipe=recipe,
        store=store,
        dataset=dataset,
        checkpoint=checkpoint,
        evaluation=evaluation,
        compressed=compressed,
    )


def seal(made: Made, keys: Path, **changes: str) -> str:
    plan = ReleasePlan(
        release_id="r-1",
        recipe=made.recipe.reference,
        seed=1,
        store_uri=made.store.uri,
        regions=["us-east"],
        code_version="c",
        data_hash="d",
    )
    key = SigningKey.ensure(keys)
    bundle = build_bundle(made.recipe, plan, made.compressed, made.evaluation, made.store, key, {"commit": "abc"})
    return bundle.digest


def figures(compressed: CompressedModel) -> dict[str, float]:
    return {figure.name: figure.value for figure in compressed.figures}


def test_compressing_again_gives_the_same_bytes(made: Made) -> None:
    again = compress(made.recipe, made.dataset, made.checkpoint, made.evaluation, made.store)
    assert (again.uri, again.sha256) == (made.compressed.uri, made.compressed.sha256)


def test_int8_keeps_the_accuracy_in_both_profiles(made: Made) -> None:
    found = figures(made.compressed)
    for variant in ("onnxruntime-cpu-int8", "tensorrt-int8-qdq"):
        assert found[f"{variant} accuracy"] >= 0.97 * found["onnxruntime-cpu-fp32 accuracy"]


def test_the_onnx_file_answers_like_the_model_it_came_from(made: Made) -> None:
    assert figures(made.compressed)["fp32_accuracy"] == pytest.approx(made.evaluation.accuracy)
    assert figures(made.compressed)["export_max_difference"] < 1e-3


class _Fastidious(Classifier):
    """Calls every coarse answer wrong: 8 bits have 256 values, float32 logits of a test set have more."""

    def judge(self, outputs: NDArray[np.float32], split: Split) -> Judgement:
        judgement = Classifier.judge(self, outputs, split)
        return judgement if len(np.unique(outputs)) > 256 else replace(judgement, accuracy=0.0)


def _fastidious() -> _Fastidious:
    return _Fastidious(**{of.name: getattr(classifier(), of.name) for of in fields(Classifier)})


@pytest.mark.parametrize("made", [EXAMPLE], indirect=True)
def test_int8_below_the_bound_leaves_fp32_in_service(made: Made) -> None:
    recipe = replace(made.recipe, family=_fastidious)
    compressed = compress(recipe, made.dataset, made.checkpoint, made.evaluation, made.store)
    assert compressed.chosen_variant == "onnxruntime-cpu-fp32"
    assert figures(compressed)["int8_accuracy"] == 0.0
    assert figures(compressed)["int8_chosen"] == 0.0


def test_nothing_of_the_machine_is_in_the_models(made: Made) -> None:
    folder = Path(made.compressed.uri.removeprefix("file://"))
    for path in sorted(folder.glob("*.onnx")):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content
        assert str(Path.cwd()).encode() not in content
        proto = onnx.load_from_string(content)
        assert not proto.producer_version
        assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_the_tensorrt_graph_is_symmetric_and_leaves_the_bias_alone(made: Made) -> None:
    folder = Path(made.compressed.uri.removeprefix("file://"))
    graph = onnx.load(folder / "model.int8-tensorrt.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    for node in nodes:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == "int8"
        assert not zero_point.any()


def test_the_bundle_verifies_and_its_digest_is_reproducible(made: Made, tmp_path: Path) -> None:
    digest = seal(made, tmp_path / "keys")
    other_store = replace(made, store=ArtifactStore((tmp_path / "elsewhere").as_uri()))
    other_store.store.write_record(
        f"measurements/{made.compressed.sha256}.json",
        made.store.read_record(f"measurements/{made.compressed.sha256}.json") or {},
    )
    assert seal(other_store, tmp_path / "other-keys") == digest
    root = other_store.store.fetch_bundle(digest, tmp_path / "fetched")
    manifest, attestation = verify_bundle(root, digest=digest, keys=trusted_keys(tmp_path / "other-keys"))
    assert [variant.name for variant in manifest.variants] == [
        "onnxruntime-cpu-int8",
        "onnxruntime-cpu-fp32",
        "tensorrt-int8-qdq",
    ]
    assert manifest.golden is not None
    assert manifest.golden.samples == min(made.recipe.golden_samples, made.dataset.samples["test"])
    assert manifest.classes == made.dataset.classes
    assert attestation.lineage["commit"] == "abc"
    assert any(measured.interval for measured in attestation.measurements)


def test_a_bundle_damaged_in_the_store_is_caught(made: Made, tmp_path: Path) -> None:
    own = replace(made, store=ArtifactStore((tmp_path / "store").as_uri()))
    own.store.write_record(
        f"measurements/{made.compressed.sha256}.json",
        made.store.read_record(f"measurements/{made.compressed.sha256}.json") or {},
    )
    digest = seal(own, tmp_path / "keys")
    model = tmp_path / "store" / bundle_path(digest) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    model.write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"model\.onnx"):
        own.store.fetch_bundle(digest, tmp_path / "fetched")


def test_a_damaged_compressed_model_is_not_sealed(made: Made, tmp_path: Path) -> None:
    fetched = tmp_path / "damaged"
    fetched.mkdir()
    for path in Path(made.compressed.uri.removeprefix("file://")).iterdir():
        (fetched / path.name).write_bytes(path.read_bytes())
    (fetched / "model.onnx").write_bytes(b"not a model")
    damaged = replace(made, compressed=replace(made.compressed, uri=fetched.as_uri()))
    with pytest.raises(PermanentError, match=r"model\.onnx"):
        seal(damaged, tmp_path / "keys")


def test_a_checkpoint_swapped_in_the_store_is_not_evaluated(made: Made) -> None:
    claimed = replace(made.checkpoint, sha256="0" * 64)
    with pytest.raises(PermanentError, match="wrong SHA-256"):
        evaluate(made.recipe, made.dataset, claimed, made.store)


def test_pages_are_drawn_without_scripts(made: Made) -> None:
    for page in (evaluation_page(made.evaluation), compression_page(made.compressed)):
        assert "<svg" in page
        assert "<script" not in page
    assert made.compressed.chosen_variant in compression_page(made.compressed)
