"""Damage a sealed bundle the way a bad build would: after evaluation, with valid hashes and signature."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from serving.bundle import Attestation, Manifest, describe_file, read_manifest, seal
from serving.credentials import SigningKey
from serving.store import ArtifactStore

Damage = Callable[[Path], None]
"""Changes the entry (file or folder) of a bundle's variant in place."""


def _edited(path: Path, edit: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(path))
    edit(model)
    onnx.save(model, str(path))


def shuffle_weights(path: Path) -> None:
    """Permute every weight tensor of two dimensions or more, with a fixed seed."""
    _edited(path, _shuffle)


def _shuffle(model: onnx.ModelProto) -> None:
    generator = np.random.default_rng(0)
    shuffled = 0
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim >= 2 and weights.size >= 64:
            mixed = generator.permutation(weights.ravel()).reshape(weights.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
            shuffled += 1
    assert shuffled > 0


def scale_one_layer_wrongly(path: Path) -> None:
    """Multiply the scales of one layer's weights, in the middle of the graph, by 16."""
    _edited(path, _scale)


def _scale(model: onnx.ModelProto) -> None:
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and len(tensors[node.input[0]].dims) > 1
    ]
    tensor = tensors[weights[len(weights) // 2].input[1]]
    scale = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(scale * 16, dtype=scale.dtype), tensor.name))


def swap_tokenizer(folder: Path) -> None:
    """Exchange the ids of letters in the vocabulary: every text still comes back whole, as other ids."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    letters = [token for token in vocabulary if len(token) == 1 and token.isalpha()]
    turned = [vocabulary[token] for token in letters[1:] + letters[:1]]
    vocabulary.update(zip(letters, turned, strict=True))
    path.write_text(json.dumps(tokenizer))


def break_chat_template(folder: Path) -> None:
    """Forget to open the assistant's turn."""
    path = folder / "chat_template.jinja"
    template = path.read_text()
    broken = template.replace("{{ '<|assistant|>' }}", "")
    assert broken != template
    path.write_text(broken)


def shuffle_language_weights(folder: Path) -> None:
    """Permute every matrix, with a fixed seed."""
    path = folder / "model.safetensors"
    generator = np.random.default_rng(0)
    tensors = {
        name: generator.permutation(tensor.ravel()).reshape(tensor.shape) if tensor.ndim > 1 else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})


def damaged_bundle(
    store: ArtifactStore, digest: str, key: SigningKey, variant: str, damage: Damage, scratch: Path
) -> str:
    """Put a damaged copy of a bundle into the store and return its digest; the golden set stays as it was."""
    root = store.fetch_bundle(digest, scratch / "bundle")
    manifest = read_manifest(root)
    damage(root / manifest.variant(variant).entry)
    changed = _described_anew(root, manifest)
    (root / "manifest.json").unlink()
    attestation = Attestation(
        bundle_name=changed.name, bundle_digest=changed.digest, lineage={"commit": "test"}, measurements=[]
    )
    seal(root, changed, attestation, key)
    try:
        return store.put_bundle(root)
    finally:
        shutil.rmtree(root)


def _described_anew(root: Path, manifest: Manifest) -> Manifest:
    variants = [
        replace(variant, files=[describe_file(root, file.path) for file in variant.files])
        for variant in manifest.variants
    ]
    return replace(manifest, variants=variants)


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path
