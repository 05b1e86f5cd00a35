"""The compression stage: ONNX, INT8 in two profiles, each judged on the held-out test set.

The folder it leaves in the store holds content only and is named by it. What was measured on the way
(latency differs from machine to machine) lies beside it, in `measurements/<sha256>.json`.
"""

import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.bundle import hash_file
from serving.files import canonical_json, write_atomically
from serving.store import ArtifactStore
from tasks.artifacts import Checkpoint, CompressedModel, Dataset, Evaluation
from tasks.compression import report
from tasks.compression.calibration import CALIBRATION, choose_samples, write_summary
from tasks.compression.export import export_onnx, verify_export
from tasks.compression.qdq import CPU, TENSORRT, quantize
from tasks.compression.sessions import open_session, run_outputs
from tasks.data.module import Split, fetch_dataset, read_split
from tasks.evaluation.accuracy import GOLDEN, predict, read_evaluation
from tasks.evaluation.latency import measure_latency
from tasks.progress import announce
from tasks.training.family import Family, Judgement, Signature
from tasks.training.recipes import Recipe
from tasks.training.state import load_model

if TYPE_CHECKING:
    import onnxruntime

COMPRESSED: Final = "compressed.json"
_BATCHES: Final = (1, 32)
"""A lone request, and a full batch of the model server."""


def compress(
    recipe: Recipe, dataset: Dataset, checkpoint: Checkpoint, evaluation: Evaluation, store: ArtifactStore
) -> CompressedModel:
    """Export, quantize, judge and store a trained model.

    Raises:
        PermanentError: an artifact is damaged, the model cannot be exported, or its export answers differently.
    """
    started = time.monotonic()
    family = recipe.family()
    with tempfile.TemporaryDirectory() as name:
        scratch, folder = Path(name), Path(name) / "compressed"
        folder.mkdir()
        data = fetch_dataset(dataset.uri, scratch / "dataset", sha256=dataset.sha256)
        test = read_split(data, "test")
        difference = _export(family, checkpoint, test, folder, scratch)
        export_s = time.monotonic() - started
        announce("compression", "exported to ONNX", seconds=export_s, max_difference=difference)
        _quantize(family, choose_samples(read_split(data, "train"), recipe.calibration_samples), folder, scratch)
        _keep_golden(evaluation, folder, scratch)
        judgements, taken = _measure(family, test, folder)
        sizes = {variant: (folder / file).stat().st_size for variant, file in report.FILES.items()}
        uri, sha256 = _put(folder, store)
    store.write_record(f"measurements/{sha256}.json", report.measurement_record(taken))
    choice = report.choose_variant(
        fp32_accuracy=judgements[report.FP32].accuracy,
        int8_accuracy=judgements[report.INT8_CPU].accuracy,
        bound=recipe.min_int8_accuracy_ratio,
    )
    announce("compression", f"chose {choice.variant}", ratio=choice.ratio, bound=choice.bound)
    return CompressedModel(
        uri=uri,
        sha256=sha256,
        chosen_variant=choice.variant,
        fp32_accuracy=judgements[report.FP32].accuracy,
        int8_accuracy=judgements[report.INT8_CPU].accuracy,
        seconds=time.monotonic() - started,
        figures=report.figures(choice, taken, sizes, export_s, difference),
    )


def _export(family: Family, checkpoint: Checkpoint, test: Split, folder: Path, scratch: Path) -> float:
    model = load_model(family, checkpoint, scratch / "checkpoint")
    reference = predict(family, model, test)
    path = export_onnx(family, model, folder / report.FILES[report.FP32])
    return verify_export(path, reference, test, family.signature())


def _quantize(family: Family, split: Split, folder: Path, scratch: Path) -> None:
    source, cache, signature = folder / report.FILES[report.FP32], scratch / "ranges.json", family.signature()
    for variant, profile in ((report.INT8_CPU, CPU), (report.INT8_TENSORRT, TENSORRT)):
        quantize(source, folder / report.FILES[variant], profile, split=split, signature=signature, cache=cache)
    write_summary(cache, folder / CALIBRATION, samples=len(next(iter(split.values()))))


def _keep_golden(evaluation: Evaluation, folder: Path, scratch: Path) -> None:
    read_evaluation(evaluation, scratch / "evaluation")
    write_atomically(folder / GOLDEN, (scratch / "evaluation" / GOLDEN).read_bytes())


def _measure(family: Family, test: Split, folder: Path) -> tuple[dict[str, Judgement], list[Any]]:
    """Judge all variants; time those that this machine serves, in the session that serves them."""
    signature = family.signature()
    # TensorRT's graph is judged by its own arithmetic, not by ONNX Runtime's fusions on this CPU.
    sessions = {
        variant: open_session(folder / file, optimised=variant != report.INT8_TENSORRT)
        for variant, file in report.FILES.items()
    }
    judgements = {name: family.judge(run_outputs(session, signature, test), test) for name, session in sessions.items()}
    deployed = {
        name: _caller(session, signature, test) for name, session in sessions.items() if name != report.INT8_TENSORRT
    }
    latencies = measure_latency(deployed, batches=_BATCHES)
    return judgements, report.measurements(judgements, latencies, report.describe_machine())


def _caller(session: "onnxruntime.InferenceSession", signature: Signature, test: Split) -> Any:
    """A function that runs one batch of the given size."""
    prepared: dict[int, dict[str, NDArray[Any]]] = {
        batch: {spec.name: np.resize(test[spec.name], (batch, *test[spec.name].shape[1:])) for spec in signature.inputs}
        for batch in _BATCHES
    }
    output = signature.outputs[0].name
    return lambda batch: session.run([output], prepared[batch])


def _put(folder: Path, store: ArtifactStore) -> tuple[str, str]:
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
    record = canonical_json({"schema_version": 1, "files": files})
    write_atomically(folder / COMPRESSED, record)
    sha256 = hashlib.sha256(record).hexdigest()
    return store.put_folder(folder, f"compressed/{sha256}", marker=COMPRESSED), sha256
