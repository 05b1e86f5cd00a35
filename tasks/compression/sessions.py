"""ONNX Runtime as the model servers run it: one thread, the CPU, and the deployed optimisations or none."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import PermanentError
from tasks.recipes.data_source import Split
from tasks.recipes.family import Signature

if TYPE_CHECKING:
    import onnxruntime

_BATCH: Final = 64


def open_session(path: Path, *, optimised: bool = True) -> "onnxruntime.InferenceSession":
    """A session on one CPU thread.

    Args:
        optimised: False keeps the graph as written: a graph made for another runtime is judged by its
            arithmetic, not by this one's fusions.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as broken:
        # ONNX Runtime raises classes of its C++ binding that share no base but Exception.
        raise PermanentError(f"{path.name} cannot be opened ({broken})", expected="an ONNX model") from broken


def run_outputs(session: "onnxruntime.InferenceSession", signature: Signature, split: Split) -> NDArray[np.float32]:
    """The first output for every sample of `split`, (samples, ...)."""
    names = [spec.name for spec in signature.inputs]
    samples = len(split[names[0]])
    parts: list[Any] = [
        session.run([signature.outputs[0].name], {name: split[name][start : start + _BATCH] for name in names})[0]
        for start in range(0, samples, _BATCH)
    ]
    return np.concatenate(parts)
