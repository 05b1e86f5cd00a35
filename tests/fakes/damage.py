"""Damage a sealed bundle the way a bad build would: after evaluation, with valid hashes and signature."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from serving.bundle import Attestation, Manifest, describe_file, read_manifest, seal
from serving.credentials import SigningKey
from serving.store import ArtifactStore

Damage = Callable[[onnx.ModelProto], None]


def shuffle_weights(model: onnx.ModelProto) -> None:
    """Permute every weight tensor of more than two dimensions, or of two, with a fixed seed."""
    generator = np.random.default_rng(0)
    shuffled = 0
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim >= 2 and weights.size >= 64:
            mixed = generator.permutation(weights.ravel()).reshape(weights.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
            shuffled += 1
    assert shuffled > 0


def scale_one_layer_wrongly(model: onnx.ModelProto) -> None:
    """Multiply the scales of one layer's weights, in the middle of the graph, by 16."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors and len(tensors[node.input[0]].dims) > 1
    ]
    tensor = tensors[weights[len(weights) // 2].input[1]]
    scale = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(scale * 16, dtype=scale.dtype), tensor.name))


def damaged_bundle(
    store: ArtifactStore, digest: str, key: SigningKey, variant: str, damage: Damage, scratch: Path
) -> str:
    """Put a damaged copy of a bundle into the store and return its digest; the golden set stays as it was."""
    root = store.fetch_bundle(digest, scratch / "bundle")
    manifest = read_manifest(root)
    entry = root / manifest.variant(variant).entry
    model = onnx.load(str(entry))
    damage(model)
    onnx.save(model, str(entry))
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
