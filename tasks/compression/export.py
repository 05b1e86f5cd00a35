"""From a trained model to ONNX: one file, a dynamic batch, nothing in it of the machine that made it.

Exporting the same weights twice, in whatever folder, gives the same bytes: names, stack traces and
versions that the exporter adds are removed. The file is checked against the model it came from.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from serving.errors import InvalidInput, PermanentError
from serving.files import write_atomically
from tasks.compression.sessions import open_session, run_outputs
from tasks.recipes.data_source import Split
from tasks.recipes.family import Family, Signature

if TYPE_CHECKING:
    import torch

MAX_DIFFERENCE: Final = 1e-4
"""Allowed difference to the torch model's outputs, as a share of the largest of them, or of 10 (a large logit) if they
are less: reordered float32 sums, no more."""

_NOTES: Final = ("metadata_props", "doc_string")
_TORCH_TYPES: Final = {"FP32": "float32", "INT64": "int64", "INT32": "int32"}


def export_onnx(family: Family, model: "torch.nn.Module", path: Path) -> Path:
    """Write the model to `path` with the names of its signature and a dynamic first dimension.

    Raises:
        PermanentError: the exporter does not support the model.
    """
    import torch

    signature, batch = family.signature(), torch.export.Dim("batch")
    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                model.eval(),
                _example_inputs(signature),
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=[spec.name for spec in signature.inputs],
                output_names=[spec.name for spec in signature.outputs],
                dynamic_shapes=tuple({0: batch} for _ in signature.inputs),
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as unsupported:
            raise PermanentError(f"model cannot be exported to ONNX ({unsupported})") from unsupported
    if program is None:
        raise PermanentError("model cannot be exported to ONNX", got="no program")
    proto = program.model_proto
    strip(proto)
    onnx.checker.check_model(proto, full_check=True)
    write_atomically(path, proto.SerializeToString(deterministic=True))
    return path


def strip(proto: onnx.ModelProto) -> None:
    """Remove everything that depends on where, when and by what the model was exported."""
    proto.producer_name = proto.producer_version = proto.domain = ""
    _clear_notes(proto)


def _clear_notes(message: Any) -> None:
    """Drop notes (stack traces, scopes, comments) of a protobuf message and of all that it holds."""
    for field, value in message.ListFields():
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in (value,) if hasattr(value, "ListFields") else value:
                _clear_notes(child)


def verify_export(path: Path, reference: "np.typing.NDArray[np.float32]", split: Split, signature: Signature) -> float:
    """Run the exported model over `split` and compare; returns the largest absolute difference.

    Args:
        reference: the torch model's first output for the same samples.
    """
    outputs = run_outputs(open_session(path), signature, split)
    difference = float(np.abs(outputs - reference).max())
    allowed = MAX_DIFFERENCE * max(10.0, float(np.abs(reference).max()))
    if not difference <= allowed:
        raise PermanentError("exported model answers differently", got=difference, expected=f"<= {allowed:.4g}")
    return difference


def _example_inputs(signature: Signature) -> "tuple[torch.Tensor, ...]":
    """Two samples of zeros: the exporter treats a batch of one as a constant."""
    import torch

    examples = []
    for spec in signature.inputs:
        if spec.datatype not in _TORCH_TYPES or -1 in spec.shape[1:]:
            raise InvalidInput(
                f"input {spec.name} cannot be exported",
                got=f"{spec.datatype} {spec.shape}",
                expected=f"{' | '.join(_TORCH_TYPES)}, only the first dimension dynamic",
            )
        examples.append(torch.zeros(2, *spec.shape[1:], dtype=getattr(torch, _TORCH_TYPES[spec.datatype])))
    return tuple(examples)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of absent torchvision, of its own deprecated calls, and of inputs that share a batch. None of
    this says anything of the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message=r"(?s).*The axis name: batch", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
