"""ONNX for classifiers and their like: FP32, and INT8 in two profiles, each judged on the held-out test set."""

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import PermanentError
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
    """Serves INT8 on CPUs, if it can be made and its accuracy is not below the recipe's bound; FP32 always ships."""

    def pack(self, job: PackingJob) -> Packed:
        started = time.monotonic()
        test = read_split(job.data, "test")
        difference = _export(job, test)
        export_s = time.monotonic() - started
        announce("compression", "exported to ONNX", seconds=export_s, max_difference=difference)
        refused = _quantize(job)
        judgements, latencies = _judge(job, test, refused)
        for variant, reason in refused.items():
            (job.folder / report.FILES[variant]).unlink(missing_ok=True)
            announce("compression", f"no {variant}: {reason}")
        if len(judgements) == 1:
            (job.folder / CALIBRATION).unlink(missing_ok=True)
        taken = report.measurements(judgements, latencies, report.describe_machine())
        int8 = judgements.get(report.INT8_CPU)
        choice = report.choose_variant(
            fp32_accuracy=judgements[report.FP32].accuracy,
            int8_accuracy=None if int8 is None else int8.accuracy,
            bound=job.min_int8_accuracy_ratio,
        )
        sizes = {variant: (job.folder / report.FILES[variant]).stat().st_size for variant in judgements}
        return Packed(
            variants=[_variant(name) for name in _RUNTIMES if name in judgements],
            chosen=choice.variant,
            measurements=taken,
            figures=report.figures(choice, judgements, taken, sizes, export_s, difference),
            notes=[f"no {variant}: {reason}" for variant, reason in refused.items()],
        )


def _variant(name: str) -> PackedVariant:
    file = report.FILES[name]
    return PackedVariant(name=name, runtime=_RUNTIMES[name], entry=file, files=[file], requires=_REQUIRES.get(name, {}))


def _export(job: PackingJob, test: Split) -> float:
    """Write the FP32 graph; returns its largest difference to the model."""
    reference = predict(job.family, job.model, test)
    path = export_onnx(job.family, job.model, job.folder / report.FILES[report.FP32])
    return verify_export(path, reference, test, job.family.signature())


def _quantize(job: PackingJob) -> dict[str, str]:
    """Write the INT8 variants that can be made; returns why the others cannot, by variant."""
    split = choose_samples(read_split(job.data, "train"), job.calibration_samples)
    source, cache = job.folder / report.FILES[report.FP32], job.scratch / "ranges.json"
    signature = job.family.signature()
    refused = {}
    for variant, profile in ((report.INT8_CPU, CPU), (report.INT8_TENSORRT, TENSORRT)):
        try:
            quantize(source, job.folder / report.FILES[variant], profile, split=split, signature=signature, cache=cache)
            write_summary(cache, job.folder / CALIBRATION, samples=len(next(iter(split.values()))))
        except PermanentError as unfit:
            refused[variant] = str(unfit)
    return refused


def _judge(job: PackingJob, test: Split, refused: dict[str, str]) -> tuple[dict[str, Judgement], list[Latency]]:
    """Judge all variants; time those that this machine serves, in the session that serves them.

    An INT8 graph that does not run joins those that were `refused`.
    """
    signature = job.family.signature()
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    judgements: dict[str, Judgement] = {}
    for variant, file in report.FILES.items():
        if variant in refused:
            continue
        try:
            # TensorRT's graph is judged by its own arithmetic, not by ONNX Runtime's fusions on this CPU.
            session = open_session(job.folder / file, optimised=variant != report.INT8_TENSORRT)
            judgements[variant] = job.family.judge(run_outputs(session, signature, test), test)
        except Exception as unfit:
            # The runtime's errors have no common root. FP32 must run: it is what ships.
            if variant == report.FP32:
                raise
            refused[variant] = f"{type(unfit).__name__}: {unfit}"
            continue
        sessions[variant] = session
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
