"""What the ONNX packing found out: which variant to serve, and figures for people and for the attestation."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from serving.bundle import Measurement
from tasks.artifacts import Figure
from tasks.evaluation.latency import Latency
from tasks.recipes.family import Judgement

FP32: Final = "onnxruntime-cpu-fp32"
INT8_CPU: Final = "onnxruntime-cpu-int8"
INT8_TENSORRT: Final = "tensorrt-int8-qdq"

FILES: Final[Mapping[str, str]] = {
    FP32: "model.onnx",
    INT8_CPU: "model.int8-cpu.onnx",
    INT8_TENSORRT: "model.int8-tensorrt.onnx",
}
"""Where each variant lies in the compressed folder and in the bundle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which variant a CPU region serves, and why."""

    variant: str
    ratio: float | None
    """INT8 accuracy over FP32 accuracy; None where there is no INT8 variant."""
    bound: float


def choose_variant(*, fp32_accuracy: float, int8_accuracy: float | None, bound: float) -> Choice:
    """INT8 unless there is none, or its accuracy fell below `bound` times the FP32 one."""
    if int8_accuracy is None:
        return Choice(variant=FP32, ratio=None, bound=bound)
    ratio = int8_accuracy / fp32_accuracy if fp32_accuracy > 0 else 0.0
    accepted = int8_accuracy >= bound * fp32_accuracy
    return Choice(variant=INT8_CPU if accepted else FP32, ratio=ratio, bound=bound)


def describe_machine() -> str:
    """Where figures come from, for example `x86_64, 2 cores, onnxruntime 1.32.0`."""
    import onnxruntime

    return f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, onnxruntime {onnxruntime.__version__}"


def measurements(judgements: Mapping[str, Judgement], latencies: Sequence[Latency], where: str) -> list[Measurement]:
    """Accuracy (with interval) of every variant, latency of those that ran as deployed."""
    accuracy = [
        Measurement(
            name=f"{variant} accuracy",
            value=judgement.accuracy,
            unit="share",
            where=where,
            interval=list(judgement.interval),
        )
        for variant, judgement in judgements.items()
    ]
    speed = [
        Measurement(name=f"{latency.variant} {name} batch {latency.batch}", value=value, unit="ms", where=where)
        for latency in latencies
        for name, value in (("p50", latency.p50_ms), ("p95", latency.p95_ms))
    ]
    return accuracy + speed


def figures(
    choice: Choice,
    judgements: Mapping[str, Judgement],
    taken: Sequence[Measurement],
    sizes_bytes: Mapping[str, int],
    export_s: float,
    difference: float,
) -> list[Figure]:
    """The same and the rest, for the report."""
    return [
        Figure(name="fp32_accuracy", value=judgements[FP32].accuracy, unit="share"),
        *(Figure(name=measured.name, value=measured.value, unit=measured.unit) for measured in taken),
        *(Figure(name=f"{variant} size", value=float(size), unit="bytes") for variant, size in sizes_bytes.items()),
        *_int8_figures(choice, judgements),
        Figure(name="export_seconds", value=export_s, unit="s"),
        Figure(name="export_max_difference", value=difference, unit="logit"),
    ]


def _int8_figures(choice: Choice, judgements: Mapping[str, Judgement]) -> list[Figure]:
    if choice.ratio is None:
        return []
    return [
        Figure(name="int8_accuracy", value=judgements[INT8_CPU].accuracy, unit="share"),
        Figure(name="int8_accuracy_ratio", value=choice.ratio, unit="share of FP32"),
        Figure(name="int8_accuracy_bound", value=choice.bound, unit="share of FP32"),
        Figure(name="int8_chosen", value=float(choice.variant == INT8_CPU), unit="1 yes, 0 no: below the bound"),
    ]


def measurement_record(taken: Sequence[Measurement]) -> dict[str, Any]:
    """JSON for the store: what was measured, apart from the content it was measured on."""
    return {
        "schema_version": 1,
        "measurements": [
            {"name": m.name, "value": m.value, "unit": m.unit, "where": m.where, "interval": m.interval} for m in taken
        ],
    }
