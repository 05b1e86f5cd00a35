"""Models that were never trained here are taken in whole, checked, or refused with a reason."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from serving.bundle import verify_bundle
from serving.credentials import SigningKey, trusted_keys
from serving.errors import FlightpathError, InvalidInput, NotFound
from serving.store import ArtifactStore
from tasks.intake.lora import merge_adapter
from tasks.intake.source import Kind, recognise
from tasks.intake.stage import IntakeOrder, take_in


def _onnx(path: Path, *, batch: str | int = "batch") -> Path:
    weights = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "W")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["scores"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def _order(source: Path, **changed: object) -> IntakeOrder:
    values: dict[str, object] = {
        "source": source,
        "model": "mine",
        "release_id": "",
        "regions": ["us-east"],
        "base": None,
        "golden": None,
        "make_golden": False,
    }
    return IntakeOrder(**{**values, **changed})  # type: ignore[arg-type]  # one of them is changed


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


def test_an_onnx_file_becomes_a_verified_bundle_with_a_golden_set_made_on_request(
    tmp_path: Path, store: ArtifactStore, signing_key: SigningKey
) -> None:
    plan, bundle = take_in(_order(_onnx(tmp_path / "m.onnx"), make_golden=True), store, signing_key)
    root = store.fetch_bundle(bundle.digest, tmp_path / "back")
    manifest, attestation = verify_bundle(root, digest=bundle.digest, keys=trusted_keys(tmp_path / "keys"))
    assert bundle.engine == "onnxruntime"
    assert manifest.inputs[0].shape == [-1, 4]
    assert manifest.golden is not None
    assert (manifest.golden.samples, manifest.golden.reference_accuracy) == (64, 1.0)
    assert attestation.lineage["golden"].startswith("made")
    assert plan.release_id.startswith("mine-")


def test_the_same_file_twice_is_the_same_bundle(tmp_path: Path, store: ArtifactStore, signing_key: SigningKey) -> None:
    source = _onnx(tmp_path / "m.onnx")
    first = take_in(_order(source, make_golden=True), store, signing_key)
    again = take_in(_order(source, make_golden=True), store, signing_key)
    assert first[1].digest == again[1].digest
    assert first[0] == again[0]


def test_a_golden_set_of_the_users_own_is_judged_with_its_labels(
    tmp_path: Path, store: ArtifactStore, signing_key: SigningKey
) -> None:
    inputs = np.eye(4, dtype=np.float32)[:3]
    save_file({"inputs": inputs, "labels": np.array([0, 1, 0])}, tmp_path / "golden.safetensors")
    order = _order(_onnx(tmp_path / "m.onnx"), golden=tmp_path / "golden.safetensors")
    _, bundle = take_in(order, store, signing_key)
    golden = store.read_manifest(bundle.digest).golden
    assert golden is not None
    assert golden.reference_accuracy == pytest.approx(2 / 3)


def test_an_onnx_file_without_a_dynamic_batch_is_refused(
    tmp_path: Path, store: ArtifactStore, signing_key: SigningKey
) -> None:
    with pytest.raises(InvalidInput, match=r"input x has no dynamic batch, got \[1, 4\]"):
        take_in(_order(_onnx(tmp_path / "m.onnx", batch=1)), store, signing_key)


def test_a_golden_set_that_does_not_fit_is_refused(
    tmp_path: Path, store: ArtifactStore, signing_key: SigningKey
) -> None:
    save_file({"inputs": np.zeros((2, 5), np.float32), "labels": np.zeros(2)}, tmp_path / "golden.safetensors")
    order = _order(_onnx(tmp_path / "m.onnx"), golden=tmp_path / "golden.safetensors")
    with pytest.raises(InvalidInput, match="golden set does not fit the model"):
        take_in(order, store, signing_key)


def test_garbage_called_onnx_is_refused(tmp_path: Path, store: ArtifactStore, signing_key: SigningKey) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(FlightpathError, match="ONNX model cannot be opened"):
        take_in(_order(tmp_path / "m.onnx"), store, signing_key)


def test_weights_that_can_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(InvalidInput, match=r"no safetensors weights, got \['pytorch_model.bin'\]"):
        recognise(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    (folder / "secret").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="links outside its folder"):
        recognise(folder)


def test_nothing_and_anything_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="model source is missing"):
        recognise(tmp_path / "none")
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(InvalidInput, match="of no known kind"):
        recognise(tmp_path / "readme.txt")


# Adapters


def _base(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file(
        {"model.q.weight": np.ones((4, 3), np.float32), "other": np.zeros(2, np.float32)}, folder / "w.safetensors"
    )
    return folder


def _adapter(folder: Path, tensors: dict[str, np.ndarray], **config: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, **config}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


_A, _B = "base_model.model.model.q.lora_A.weight", "base_model.model.model.q.lora_B.weight"


def _halves() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        _A: generator.standard_normal((2, 3)).astype(np.float32),
        _B: generator.standard_normal((4, 2)).astype(np.float32),
    }


@pytest.mark.parametrize(("config", "scale"), [({}, 2.0), ({"use_rslora": True}, 4 / 2**0.5)])
def test_an_adapter_is_added_to_its_base(tmp_path: Path, config: dict[str, object], scale: float) -> None:
    halves = _halves()
    adapter, base = recognise(_adapter(tmp_path / "a", halves, **config)), recognise(_base(tmp_path / "b"))
    assert (adapter.kind, base.kind) == (Kind.LORA, Kind.HUGGING_FACE)
    merge_adapter(adapter, base, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "w.safetensors")
    np.testing.assert_allclose(merged["model.q.weight"], 1 + scale * halves[_B] @ halves[_A], rtol=1e-6)
    np.testing.assert_array_equal(merged["other"], np.zeros(2))


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"use_dora": True}, _halves(), "no plain LoRA"),
        ({"bias": "all"}, _halves(), "no plain LoRA"),
        ({"r": 0}, _halves(), "no plain LoRA"),
        ({}, {_A: _halves()[_A]}, "lacks one half"),
        ({}, {"base_model.model.head.weight": np.ones(2, np.float32)}, "more than low-rank updates"),
        ({}, {name.replace("q", "k"): half for name, half in _halves().items()}, "weights that the base lacks"),
        ({}, {_A: np.ones((2, 5), np.float32), _B: _halves()[_B]}, "adapter does not fit"),
    ],
)
def test_an_adapter_that_is_more_or_does_not_fit_is_refused(
    tmp_path: Path, config: dict[str, object], tensors: dict[str, np.ndarray], message: str
) -> None:
    adapter, base = recognise(_adapter(tmp_path / "a", tensors, **config)), recognise(_base(tmp_path / "b"))
    with pytest.raises(InvalidInput, match=message):
        merge_adapter(adapter, base, tmp_path / "merged")


def test_an_adapter_without_its_base_is_refused(tmp_path: Path, store: ArtifactStore, signing_key: SigningKey) -> None:
    with pytest.raises(InvalidInput, match="a LoRA adapter needs its base model"):
        take_in(_order(_adapter(tmp_path / "a", _halves())), store, signing_key)
