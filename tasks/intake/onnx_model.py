"""An ONNX file that was never trained here becomes a bundle's content: checked, run once, with a golden set."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from serving.bundle import GoldenSet, Manifest, TensorSpec, Variant, describe_file
from serving.errors import InvalidInput, PermanentError
from serving.files import write_atomically

VARIANT: Final = "onnxruntime-cpu"
_MODEL: Final = "model.onnx"
_GOLDEN: Final = "golden.safetensors"
_TYPES: Final = {
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(bool)": ("BOOL", np.bool_),
}
_MADE_SAMPLES: Final = 64
_MAX_GOLDEN_SAMPLES: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenInputs:
    """Inputs and what is known of their answers."""

    inputs: NDArray[Any]
    """(samples, …) as the model's one input."""
    labels: NDArray[np.int64] | None
    """True classes (samples); None when they are to be the model's own answers."""
    origin: str
    """For the lineage: where they come from."""


def build_onnx(source: Path, root: Path, *, model: str, golden: Path | None, make_golden: bool) -> tuple[Manifest, str]:
    """Fill `root` with a verified copy and its golden set; returns the manifest and the golden set's origin.

    Args:
        golden: safetensors with `inputs` (samples, …) and `labels` (samples), or None.
        make_golden: without `golden`, make one from seeded noise and the model's own answers: it then tells
            damage on the way to a region, and nothing of how good the model is.

    Raises:
        InvalidInput: the model has no dynamic batch, more than one input, or the golden set does not fit it.
        PermanentError: ONNX Runtime does not run it.
    """
    root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, root / _MODEL)
    session = _open(root / _MODEL)
    inputs, outputs = _specs(session.get_inputs(), "input"), _specs(session.get_outputs(), "output")
    chosen = _golden_inputs(golden, make_golden, inputs, session)
    golden_set = None if chosen is None else _write_golden(root, chosen, session, inputs)
    manifest = Manifest(
        name=model,
        family="onnx",
        inputs=inputs,
        outputs=outputs,
        variants=[Variant(name=VARIANT, runtime="onnxruntime", entry=_MODEL, files=[describe_file(root, _MODEL)])],
        golden=golden_set,
    )
    return manifest, "none" if chosen is None else chosen.origin


def _open(path: Path) -> Any:
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path))
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as unusable:
        # onnx and ONNX Runtime raise classes of their own that share no base.
        raise PermanentError(
            f"ONNX model cannot be opened ({unusable})", got=path.name, expected="one file"
        ) from unusable


def _specs(arguments: list[Any], what: str) -> list[TensorSpec]:
    specs = []
    for argument in arguments:
        if argument.type not in _TYPES:
            raise InvalidInput(
                f"{what} {argument.name} has a type that is not served", got=argument.type, expected=sorted(_TYPES)
            )
        shape = [dimension if isinstance(dimension, int) else -1 for dimension in argument.shape]
        if not shape or shape[0] != -1:
            raise InvalidInput(
                f"{what} {argument.name} has no dynamic batch", got=argument.shape, expected="a named first dimension"
            )
        specs.append(TensorSpec(name=argument.name, datatype=_TYPES[argument.type][0], shape=shape))
    return specs


def _golden_inputs(golden: Path | None, make: bool, inputs: list[TensorSpec], session: Any) -> GoldenInputs | None:
    if golden is None and not make:
        return None
    if len(inputs) != 1:
        raise InvalidInput(
            "a golden set needs a model of one input", got=[spec.name for spec in inputs], expected="one"
        )
    if golden is not None:
        return _read_golden(golden, inputs[0])
    shape = inputs[0].shape[1:]
    if -1 in shape:
        raise InvalidInput("a golden set cannot be made", got=inputs[0].shape, expected="only the batch dynamic")
    dtype = next(numpy for name, numpy in _TYPES.values() if name == inputs[0].datatype)
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((_MADE_SAMPLES, *shape))
    made: NDArray[Any] = noise.astype(dtype) if np.issubdtype(dtype, np.floating) else (noise > 0).astype(dtype)
    return GoldenInputs(inputs=made, labels=None, origin="made: seeded noise, the model's own answers")


def _read_golden(path: Path, spec: TensorSpec) -> GoldenInputs:
    try:
        arrays = load_file(path)
        inputs, labels = arrays["inputs"], arrays["labels"].astype(np.int64)
    except (OSError, KeyError, ValueError) as broken:
        raise InvalidInput(
            f"golden set cannot be read ({broken!r})", got=str(path), expected="safetensors with inputs and labels"
        ) from broken
    fits = inputs.ndim == len(spec.shape) and all(
        want in (-1, have) for want, have in zip(spec.shape, inputs.shape, strict=True)
    )
    if not fits or not 0 < len(inputs) == len(labels) <= _MAX_GOLDEN_SAMPLES:
        raise InvalidInput(
            "golden set does not fit the model",
            got=f"inputs {list(inputs.shape)}, labels {list(labels.shape)}",
            expected=f"inputs {spec.shape}, as many labels, at most {_MAX_GOLDEN_SAMPLES}",
        )
    return GoldenInputs(inputs=inputs, labels=labels, origin=f"given: {path.name}")


def _write_golden(root: Path, golden: GoldenInputs, session: Any, inputs: list[TensorSpec]) -> GoldenSet:
    reference = np.asarray(session.run(None, {inputs[0].name: golden.inputs})[0], dtype=np.float32)
    if reference.ndim != 2:
        raise InvalidInput(
            "first output is no list of scores", got=list(reference.shape), expected="(samples, classes)"
        )
    answers = reference.argmax(axis=1)
    labels = answers if golden.labels is None else golden.labels
    arrays = {"inputs": np.ascontiguousarray(golden.inputs), "labels": labels.astype(np.int64), "reference": reference}
    write_atomically(root / _GOLDEN, save(arrays))
    return GoldenSet(
        kind="classification",
        file=describe_file(root, _GOLDEN),
        samples=len(labels),
        reference_accuracy=float((answers == labels).mean()),
    )
