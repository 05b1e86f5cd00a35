"""The bundle: what every region will verify, replay and serve. Its digest depends on content alone."""

import json
import tempfile
import time
from pathlib import Path
from typing import Final

from serving.bundle import Attestation, GoldenSet, Manifest, Measurement, Variant, describe_file, hash_file, seal
from serving.credentials import SigningKey
from serving.errors import PermanentError
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, CompressedModel, Evaluation, Figure, ReleasePlan
from tasks.compression import report
from tasks.compression.compress import COMPRESSED
from tasks.data.addresses import fetch_folder
from tasks.evaluation.accuracy import GOLDEN, read_evaluation
from tasks.training.recipes import Recipe, fingerprint

_RUNTIMES: Final = {report.INT8_CPU: "onnxruntime", report.FP32: "onnxruntime", report.INT8_TENSORRT: "tensorrt"}
_REQUIRES: Final = {report.INT8_TENSORRT: {"tensorrt": ">=10.8"}}
"""Explicit quantization with a pair of nodes per consumer; engines are built where they run."""


def build_bundle(
    recipe: Recipe,
    plan: ReleasePlan,
    compressed: CompressedModel,
    evaluation: Evaluation,
    store: ArtifactStore,
    key: SigningKey,
    lineage: dict[str, str],
) -> BundleRef:
    """Assemble, attest, seal and store the bundle of a compressed model.

    A bundle of the same digest that is already in the store stays, with the attestation it has.

    Raises:
        PermanentError: a file of the compressed model or the golden set is damaged.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _collect(compressed, Path(scratch) / "compressed")
        record = read_evaluation(evaluation, Path(scratch) / "evaluation")
        if hash_file(folder / GOLDEN) != evaluation.golden_sha256:
            raise PermanentError("golden set is not the evaluation's", expected=evaluation.golden_sha256)
        root = Path(scratch) / "bundle"
        root.mkdir()
        for name in (GOLDEN, *report.FILES.values()):
            (folder / name).rename(root / name)
        manifest = _manifest(recipe, root, evaluation, [str(name) for name in record["classes"]])
        attestation = Attestation(
            bundle_name=manifest.name,
            bundle_digest=manifest.digest,
            lineage=_lineage(recipe, plan, lineage),
            measurements=_measurements(compressed, store),
        )
        seal(root, manifest, attestation, key)
        digest = store.put_bundle(root)
    return BundleRef(
        model=recipe.name,
        digest=digest,
        store_uri=store.uri,
        variant=compressed.chosen_variant,
        engine=_RUNTIMES[compressed.chosen_variant],
        seconds=time.monotonic() - started,
        figures=[
            Figure(
                name="bundle_size",
                value=float(sum(file.size_bytes for file in manifest.files().values())),
                unit="bytes",
            ),
            Figure(name="variants", value=float(len(manifest.variants)), unit="variants"),
        ],
    )


def _collect(compressed: CompressedModel, target: Path) -> Path:
    """Fetch the compressed folder and check it against the artifact."""
    fetch_folder(compressed.uri, target, marker=COMPRESSED)
    if (found := hash_file(target / COMPRESSED)) != compressed.sha256:
        raise PermanentError("compressed model has a wrong SHA-256", got=found, expected=compressed.sha256)
    for name, digest in json.loads((target / COMPRESSED).read_bytes())["files"].items():
        if (found := hash_file(target / name)) != digest:
            raise PermanentError(f"{name} of the compressed model has a wrong SHA-256", got=found, expected=digest)
    return target


def _manifest(recipe: Recipe, root: Path, evaluation: Evaluation, classes: list[str]) -> Manifest:
    family = recipe.family()
    signature = family.signature()
    return Manifest(
        name=recipe.name,
        family=family.kind,
        inputs=signature.inputs,
        outputs=signature.outputs,
        classes=classes,
        variants=[
            Variant(
                name=variant,
                runtime=runtime,
                entry=report.FILES[variant],
                files=[describe_file(root, report.FILES[variant])],
                requires=_REQUIRES.get(variant, {}),
            )
            for variant, runtime in _RUNTIMES.items()
        ],
        golden=GoldenSet(
            kind=family.golden_kind,
            file=describe_file(root, GOLDEN),
            samples=_golden_samples(root / GOLDEN),
            reference_accuracy=evaluation.golden_accuracy,
        ),
    )


def _golden_samples(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as golden:
        return int(golden.get_slice("reference").get_shape()[0])


def _lineage(recipe: Recipe, plan: ReleasePlan, lineage: dict[str, str]) -> dict[str, str]:
    return {
        "release": plan.release_id,
        "recipe": plan.recipe,
        "recipe_fingerprint": fingerprint(recipe),
        "seed": str(plan.seed),
        "data_hash": plan.data_hash,
        "code_version": plan.code_version,
        **lineage,
    }


def _measurements(compressed: CompressedModel, store: ArtifactStore) -> list[Measurement]:
    record = store.read_record(f"measurements/{compressed.sha256}.json")
    if record is None:
        raise PermanentError("measurements of the compressed model are missing", got=compressed.sha256)
    return [Measurement(**raw) for raw in record["measurements"]]
