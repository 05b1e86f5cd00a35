"""What a runtime must offer to stand behind the model server: tensors in, tensors out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.bundle import TensorSpec

Tensor = NDArray[Any]
Tensors = Mapping[str, Tensor]


class Engine(Protocol):
    """A loaded model. `run` blocks and is called from one thread at a time."""

    @property
    def platform(self) -> str:
        """The Open Inference Protocol's `platform`, for example `onnx_onnxruntime`."""
        ...

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Outputs by name. InvalidInput if these very tensors cannot be run, PermanentError if the model fails."""
        ...

    def close(self) -> None: ...


def can_batch(engine: Engine) -> bool:
    """Whether the first dimension of every tensor is dynamic, so that requests can share a run."""
    return all(spec.shape[:1] == [-1] for spec in (*engine.inputs, *engine.outputs))


def warm_up(engine: Engine, datatypes: Mapping[str, np.dtype[Any]]) -> None:
    """One run on zeros, dynamic dimensions 1: a model that cannot run fails before it is called ready."""
    zeros = {
        spec.name: np.zeros([max(size, 1) for size in spec.shape], dtype=datatypes[spec.datatype])
        for spec in engine.inputs
    }
    engine.run(zeros)
