"""ONNX for classifiers and their like: FP32, and INT8 in two profiles, each judged on the held-out test set."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.compression import report
from tasks.compression.calibration import CALIBRATION, choose_samples, write_summary
from tasks.compression.export import export_onnx, verify_export
from tasks.compression.qdq import CPU, TENSORRT, quantize
from tasks.compression.sessions import open_session, run_outputs
from tasks.data.dataset import read_split
from tasks.evaluation.latency import Latency, measure_latency
from tasks.progress import announce
from tasks.recipes.data_source import Split
from tasks.recipes.family import Judgement, Signature
from tasks.recipes.packing import Packed, PackedVariant, PackingJob
from tasks.training.inference import predict

if TYPE_CHECKING:
    import onnxruntime

_RUNTIMES: Final = {report.INT8_CPU: "onnxruntime", report.FP32: "onnxruntime", report.INT8_TENSORRT: "tensorrt"}
_REQUIRES: Final = {report.INT8_TENSORRT: {"tensorrt": ">=10.8"}}
"""Explicit quantization with a pair of nodes per consumer; engines are built where they run."""
_BATCHES: Final = (1, 32)
"""A lone request, and a full batch of the model server."""


class OnnxPacking:
    """Serves INT8 on CPUs unless its accuracy fell below the recipe's bound."""

    def pack(self, job: PackingJob) -> Packed:
        started = time.monotonic()
        test = read_split(job.data, "test")
        difference = _export(job, test)
        export_s = time.monotonic() - started
        announce("compression", "exported to ONNX", seconds=export_s, max_difference=difference)
        _quantize(job)
        judgements, latencies = _judge(job, test)
        taken = report.measurements(judgements, latencies, report.describe_machine())
        choice = report.choose_variant(
            fp32_accuracy=judgements[report.FP32].accuracy,
            int8_accuracy=judgements[report.INT8_CPU].accuracy,
            bound=job.min_int8_accuracy_ratio,
        )
        sizes = {variant: (job.folder / file).stat().st_size for variant, file in report.FILES.items()}
        return Packed(
            variants=[_variant(name) for name in _RUNTIMES],
            chosen=choice.variant,
            measurements=taken,
            figures=report.figures(choice, judgements, taken, sizes, export_s, difference),
        )


def _variant(name: str) -> PackedVariant:
    file = report.FILES[name]
    return PackedVariant(name=name, runtime=_RUNTIMES[name], entry=file, files=[file], requires=_REQUIRES.get(name, {}))


def _export(job: PackingJob, test: Split) -> float:
    """Write the FP32 graph; returns its largest difference to the model."""
    reference = predict(job.family, job.model, test)
    path = export_onnx(job.family, job.model, job.folder / report.FILES[report.FP32])
    return verify_export(path, reference, test, job.family.signature())


def _quantize(job: PackingJob) -> None:
    split = choose_samples(read_split(job.data, "train"), job.calibration_samples)
    source, cache = job.folder / report.FILES[report.FP32], job.scratch / "ranges.json"
    signature = job.family.signature()
    for variant, profile in ((report.INT8_CPU, CPU), (report.INT8_TENSORRT, TENSORRT)):
        quantize(source, job.folder / report.FILES[variant], profile, split=split, signature=signature, cache=cache)
    write_summary(cache, job.folder / CALIBRATION, samples=len(next(iter(split.values()))))


def _judge(job: PackingJob, test: Split) -> tuple[dict[str, Judgement], list[Latency]]:
    """Judge all variants; time those that this machine serves, in the session that serves them."""
    signature = job.family.signature()
    # TensorRT's graph is judged by its own arithmetic, not by ONNX Runtime's fusions on this CPU.
    sessions: Mapping[str, onnxruntime.InferenceSession] = {
        variant: open_session(job.folder / file, optimised=variant != report.INT8_TENSORRT)
        for variant, file in report.FILES.items()
    }
    judgements = {
        name: job.family.judge(run_outputs(session, signature, test), test) for name, session in sessions.items()
    }
    deployed = {
        name: _caller(session, signature, test) for name, session in sessions.items() if name != report.INT8_TENSORRT
    }
    return judgements, measure_latency(deployed, batches=_BATCHES)


def _caller(session: "onnxruntime.InferenceSession", signature: Signature, test: Split) -> Any:
    """A function that runs one batch of the given size."""
    prepared: dict[int, dict[str, NDArray[Any]]] = {
        batch: {spec.name: np.resize(test[spec.name], (batch, *test[spec.name].shape[1:])) for spec in signature.inputs}
        for batch in _BATCHES
    }
    output = signature.outputs[0].name
    return lambda batch: session.run([output], prepared[batch])
