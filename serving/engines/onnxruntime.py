"""ONNX Runtime behind the `Engine` protocol: CPU execution provider, threads bounded by the caller.

The session's signature must be what the manifest promises; a bundle whose model and manifest
disagree is refused before it serves.
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from serving.bundle import Manifest, TensorSpec, Variant
from serving.engines.engine import Tensor, Tensors
from serving.errors import CorruptBundle, InvalidInput, PermanentError

_DATATYPES: Final = MappingProxyType(
    {
        "tensor(bool)": "BOOL",
        "tensor(uint8)": "UINT8",
        "tensor(int8)": "INT8",
        "tensor(int32)": "INT32",
        "tensor(int64)": "INT64",
        "tensor(float16)": "FP16",
        "tensor(float)": "FP32",
        "tensor(double)": "FP64",
    }
)
_ERROR: Final = 3


class OnnxRuntimeEngine:
    """One session on the CPU. Inputs and outputs are in the manifest's order."""

    platform = "onnx_onnxruntime"

    def __init__(self, root: Path, manifest: Manifest, variant: Variant, *, threads: int) -> None:
        """Open the variant's model; CorruptBundle if ONNX Runtime refuses it or its signature differs."""
        self._session = _open_session(root / variant.entry, threads)
        self.inputs: Sequence[TensorSpec] = manifest.inputs
        self.outputs: Sequence[TensorSpec] = manifest.outputs
        self._output_names = [spec.name for spec in manifest.outputs]
        _check_signature("input", manifest.inputs, self._session.get_inputs())
        _check_signature("output", manifest.outputs, self._session.get_outputs())

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        try:
            values = self._session.run(self._output_names, dict(inputs))
        except ort_errors.InvalidArgument as refused:
            raise InvalidInput("model refuses the input", got=str(refused), expected="see its metadata") from refused
        except Exception as failed:
            # The binding raises classes without a common base, RuntimeException and Fail among them.
            raise PermanentError("model failed", got=str(failed), expected="an answer") from failed
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        del self._session


def _open_session(path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR
    # A waiting worker thread must not burn a core that another model server of this machine needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as refused:
        raise CorruptBundle("model cannot be opened", got=str(refused), expected="an ONNX model") from refused


def _check_signature(kind: str, promised: Sequence[TensorSpec], found: Sequence[Any]) -> None:
    actual = {node.name: (_DATATYPES.get(node.type, node.type), len(node.shape)) for node in found}
    wanted = {spec.name: (spec.datatype, len(spec.shape)) for spec in promised}
    if actual != wanted:
        raise CorruptBundle(f"model and manifest disagree about the {kind}s", got=actual, expected=wanted)
