"""INT8 by explicit quantize/dequantize nodes, in the two forms that two runtimes want.

`cpu`: unsigned activations and signed 7-bit weights per channel. Without VNNI, AVX2 adds pairs of
8-bit products in 16 bits and saturates; 7 bits leave room, and every CPU answers alike.
`tensorrt`: symmetric signed 8 bits, weights per channel, a pair of nodes for each consumer, no
quantized bias, nothing between an operation and the activation that TensorRT fuses into it.
One calibration serves both.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import onnx

from serving.errors import PermanentError
from serving.files import write_atomically
from tasks.compression.calibration import CalibrationBatches
from tasks.compression.export import strip
from tasks.recipes.data_source import Split
from tasks.recipes.family import Signature

_QUANTIZED_OPERATIONS: Final = (
    *("Add", "AveragePool", "Clip", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Relu", "Reshape"),
    "Transpose",
)
"""Listed, since ONNX Runtime's default is a set, whose order changes from process to process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationProfile:
    """How a runtime wants its INT8 graph."""

    name: str
    signed_activations: bool
    reduce_range: bool
    """Weights in 7 of 8 bits."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`extra_options` of onnxruntime.quantization."""


CPU: Final = QuantizationProfile(name="cpu", signed_activations=False, reduce_range=True)

TENSORRT: Final = QuantizationProfile(
    name="tensorrt",
    signed_activations=True,
    reduce_range=False,
    options=MappingProxyType(
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul", "Gemm", "Add"],
        }
    ),
)


def quantize(
    source: Path, target: Path, profile: QuantizationProfile, *, split: Split, signature: Signature, cache: Path
) -> Path:
    """Write an INT8 graph of `source` to `target`.

    Args:
        split: calibration samples.
        cache: ranges are kept here; a second profile of the same source reads them instead of measuring.

    Raises:
        PermanentError: the quantizer cannot do it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, raw = cache.with_name("prepared.onnx"), cache.with_name(f"raw-{profile.name}.onnx")
    with _quiet_quantizer():
        try:
            quant_pre_process(str(source), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(raw),
                CalibrationBatches(split, signature),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTIZED_OPERATIONS),
                per_channel=True,
                reduce_range=profile.reduce_range,
                activation_type=QuantType.QInt8 if profile.signed_activations else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(profile.options),
                calibration_cache_path=cache,
            )
        except Exception as unfit:
            # The quantizer meets a graph that it does not know with whatever that leads to: KeyError, IndexError, …
            raise PermanentError(
                f"model cannot be quantized for {profile.name} ({type(unfit).__name__}: {unfit})"
            ) from unfit
    proto = onnx.load(raw)
    strip(proto)
    onnx.checker.check_model(proto)
    write_atomically(target, proto.SerializeToString(deterministic=True))
    return target


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """The quantizer gives its advice through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
