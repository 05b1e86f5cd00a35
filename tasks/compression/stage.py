"""The compression stage: a checkpoint becomes the files that model servers open, beside the golden set.

How depends on the recipe's packing. The folder that is left in the store holds content only and is named
by it: `compressed.json` lists files, variants and golden set. What was measured on the way (latency differs
from machine to machine) lies beside it, in `measurements/<sha256>.json`.
"""

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from serving.bundle import hash_file
from serving.errors import PermanentError
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, CompressedModel, Dataset, Evaluation
from tasks.compression import report
from tasks.data.addresses import fetch_folder
from tasks.data.dataset import fetch_dataset
from tasks.evaluation.stage import read_evaluation
from tasks.progress import announce
from tasks.recipes.packing import Packed, PackedVariant, PackingJob
from tasks.recipes.recipe import Recipe
from tasks.training.state import load_model

COMPRESSED: Final = "compressed.json"
SCHEMA_VERSION: Final = 2


def compress(
    recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation, store: ArtifactStore
) -> CompressedModel:
    """Pack, judge and store a trained model.

    Raises:
        PermanentError: an artifact is damaged, the model cannot be packed, or its packed form answers differently.
    """
    started = time.monotonic()
    family = recipe.family()
    with tempfile.TemporaryDirectory() as name:
        scratch, folder = Path(name), Path(name) / "compressed"
        folder.mkdir()
        job = PackingJob(
            calibration_samples=recipe.calibration_samples,
            min_int8_accuracy_ratio=recipe.min_int8_accuracy_ratio,
            family=family,
            model=load_model(family, checkpoint, scratch / "checkpoint"),
            data=fetch_dataset(dataset.uri, scratch / "dataset", sha256=dataset.sha256),
            folder=folder,
            scratch=scratch,
        )
        packed = recipe.packing().pack(job)
        golden = _keep_golden(evaluation, folder, scratch)
        uri, sha256 = _put(folder, packed, golden, store)
    store.write_record(f"measurements/{sha256}.json", report.measurement_record(packed.measurements))
    announce("compression", f"chose {packed.chosen}")
    return CompressedModel(
        uri=uri,
        sha256=sha256,
        chosen_variant=packed.chosen,
        seconds=time.monotonic() - started,
        figures=list(packed.figures),
        notes=list(packed.notes),
    )


def _keep_golden(evaluation: Evaluation, folder: Path, scratch: Path) -> dict[str, Any]:
    """Copy the golden set beside the model; returns its entry of evaluation.json."""
    record = read_evaluation(evaluation, scratch / "evaluation")
    golden: dict[str, Any] = record["golden"]
    write_atomically(folder / golden["file"], (scratch / "evaluation" / golden["file"]).read_bytes())
    return golden


def _put(folder: Path, packed: Packed, golden: dict[str, Any], store: ArtifactStore) -> tuple[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    record = canonical_json(
        {
            "schema_version": SCHEMA_VERSION,
            "files": {path.relative_to(folder).as_posix(): hash_file(path) for path in paths},
            "variants": [variant.to_json() for variant in packed.variants],
            "golden": golden,
        }
    )
    write_atomically(folder / COMPRESSED, record)
    sha256 = hashlib.sha256(record).hexdigest()
    return store.put_folder(folder, f"compressed/{sha256}", marker=COMPRESSED), sha256


def fetch_compressed(compressed: CompressedModel, target: Path) -> tuple[list[PackedVariant], dict[str, Any]]:
    """Fetch a compressed folder to `target` and check it; returns its variants and its golden set's entry.

    Raises:
        PermanentError: a file differs from what the artifact or `compressed.json` names.
    """
    fetch_folder(compressed.uri, target, marker=COMPRESSED)
    if (found := hash_file(target / COMPRESSED)) != compressed.sha256:
        raise PermanentError("compressed model has a wrong SHA-256", got=found, expected=compressed.sha256)
    record = json.loads((target / COMPRESSED).read_bytes())
    if record["schema_version"] != SCHEMA_VERSION:
        raise PermanentError(
            f"{COMPRESSED} has an unknown schema_version", got=record["schema_version"], expected=SCHEMA_VERSION
        )
    for name, digest in record["files"].items():
        if (found := hash_file(target / name)) != digest:
            raise PermanentError(f"{name} of the compressed model has a wrong SHA-256", got=found, expected=digest)
    return [PackedVariant(**variant) for variant in record["variants"]], record["golden"]
