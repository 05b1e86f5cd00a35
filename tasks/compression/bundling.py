"""The bundle: what every region will verify, replay and serve. Its digest depends on content alone."""

import tempfile
import time
from pathlib import Path
from typing import Any

from serving.bundle import Attestation, GoldenSet, Manifest, Measurement, Variant, describe_file, seal
from serving.credentials import SigningKey
from serving.errors import PermanentError
from serving.store import ArtifactStore
from tasks.artifacts import BundleRef, CompressedModel, Evaluation, Figure, ReleasePlan
from tasks.compression.stage import fetch_compressed
from tasks.evaluation.stage import read_evaluation
from tasks.recipes.packing import PackedVariant
from tasks.recipes.recipe import Recipe, fingerprint


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
        root = Path(scratch) / "bundle"
        variants, golden = fetch_compressed(compressed, root)
        record = read_evaluation(evaluation, Path(scratch) / "evaluation")
        if golden != record["golden"]:
            raise PermanentError("golden set is not the evaluation's", got=golden, expected=record["golden"])
        _remove_others(root, {golden["file"], *(name for variant in variants for name in variant.files)})
        manifest = _manifest(recipe, root, variants, evaluation, record)
        attestation = Attestation(
            bundle_name=manifest.name,
            bundle_digest=manifest.digest,
            lineage=_lineage(recipe, plan, lineage),
            measurements=_measurements(compressed, store),
        )
        seal(root, manifest, attestation, key)
        digest = store.put_bundle(root)
    chosen = next(variant for variant in variants if variant.name == compressed.chosen_variant)
    return BundleRef(
        model=recipe.name,
        digest=digest,
        store_uri=store.uri,
        variant=compressed.chosen_variant,
        engine=chosen.runtime,
        arguments=chosen.arguments,
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


def _remove_others(root: Path, kept: set[str]) -> None:
    """What compression left for people (calibrated ranges) stays out of the bundle."""
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).as_posix() not in kept:
            path.unlink()


def _manifest(
    recipe: Recipe, root: Path, variants: list[PackedVariant], evaluation: Evaluation, record: dict[str, Any]
) -> Manifest:
    family = recipe.family()
    signature = family.signature()
    return Manifest(
        name=recipe.name,
        family=family.kind,
        inputs=signature.inputs,
        outputs=signature.outputs,
        classes=[str(name) for name in record["classes"]],
        variants=[
            Variant(
                name=variant.name,
                runtime=variant.runtime,
                entry=variant.entry,
                files=[describe_file(root, name) for name in variant.files],
                requires=variant.requires,
            )
            for variant in variants
        ],
        golden=GoldenSet(
            kind=family.golden_kind,
            file=describe_file(root, record["golden"]["file"]),
            samples=int(record["golden"]["samples"]),
            reference_accuracy=evaluation.golden_accuracy,
        ),
    )


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
