"""The Open Inference Protocol (v2) in JSON: requests to tensors, tensors to responses.

Strict on the way in: names, datatypes, shapes and the amount of data must agree with the model's
signature, and nothing is cast that would lose its value. Source of the format:
github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from pydantic_core import to_json

from serving.asgi import parse_json_object
from serving.bundle import TensorSpec
from serving.engines.engine import Tensor, Tensors
from serving.errors import InvalidInput, PermanentError, Unprocessable

DATATYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype(np.bool_),
        "UINT8": np.dtype(np.uint8),
        "INT8": np.dtype(np.int8),
        "INT32": np.dtype(np.int32),
        "INT64": np.dtype(np.int64),
        "FP16": np.dtype(np.float16),
        "FP32": np.dtype(np.float32),
        "FP64": np.dtype(np.float64),
    }
)
_MAX_DIMENSIONS: Final = 16
_MAX_ID_CHARACTERS: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class InferRequest:
    id: str | None
    inputs: Tensors
    rows: int
    """First dimension of the inputs: the size of this request in a batch."""
    outputs: list[str]
    """The outputs that were asked for, in that order; all of them by default."""


def parse_infer_request(
    body: bytes, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_rows: int
) -> InferRequest:
    """Check a request body against the model's signature; InvalidInput names what does not fit."""
    raw = parse_json_object(body)
    tensors = _parse_inputs(raw.get("inputs"), inputs)
    rows = _count_rows(tensors)
    if rows > max_rows:
        raise InvalidInput("request has too many rows", got=rows, expected=f"<= {max_rows}")
    return InferRequest(
        id=_parse_id(raw.get("id")), inputs=tensors, rows=rows, outputs=_parse_outputs(raw.get("outputs"), outputs)
    )


def _parse_id(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= _MAX_ID_CHARACTERS):
        return value
    raise InvalidInput("id is malformed", got=value, expected=f"a string of at most {_MAX_ID_CHARACTERS} characters")


def _parse_inputs(raw: Any, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise InvalidInput("inputs is malformed", got=raw, expected="a list of tensors")
    expected = sorted(spec.name for spec in specs)
    names = [entry.get("name") for entry in raw]
    if not all(isinstance(name, str) for name in names) or sorted(names) != expected:
        raise InvalidInput("inputs have wrong names", got=names, expected=expected)
    by_name = {entry["name"]: entry for entry in raw}
    return {spec.name: parse_tensor(by_name[spec.name], spec) for spec in specs}


def _parse_outputs(raw: Any, specs: Sequence[TensorSpec]) -> list[str]:
    known = [spec.name for spec in specs]
    if raw is None:
        return known
    if not isinstance(raw, list) or not all(isinstance(entry, dict) for entry in raw):
        raise InvalidInput("outputs is malformed", got=raw, expected="a list of objects with a name")
    names = [entry.get("name") for entry in raw]
    if not names or any(name not in known for name in names) or len(set(names)) != len(names):
        raise InvalidInput("outputs have wrong names", got=names, expected=f"some of {known}")
    return names


def _count_rows(tensors: Tensors) -> int:
    sizes = {name: tensor.shape[0] if tensor.ndim else 1 for name, tensor in tensors.items()}
    if len(set(sizes.values())) > 1:
        raise InvalidInput("inputs have different batch sizes", got=sizes, expected="one size")
    return next(iter(sizes.values()), 1)


def parse_tensor(entry: Mapping[str, Any], spec: TensorSpec) -> Tensor:
    """One tensor of a request, in the datatype and shape of `spec` (-1: any size of at least 1)."""
    datatype = entry.get("datatype")
    if datatype != spec.datatype:
        raise InvalidInput(f"input {spec.name} has a wrong datatype", got=datatype, expected=spec.datatype)
    shape = _parse_shape(entry.get("shape"), spec)
    if "data" not in entry:
        raise InvalidInput(f"input {spec.name} has no data", got=sorted(entry), expected="data as JSON numbers")
    return _reshape(_to_array(entry["data"], spec), shape, spec)


def _parse_shape(shape: Any, spec: TensorSpec) -> list[int]:
    fits = (
        isinstance(shape, list)
        and len(shape) == len(spec.shape) <= _MAX_DIMENSIONS
        and all(type(size) is int and size >= 1 for size in shape)
        and all(wanted in (-1, size) for size, wanted in zip(shape, spec.shape, strict=True))
    )
    if not fits:
        raise InvalidInput(f"input {spec.name} has a wrong shape", got=shape, expected=spec.shape)
    sizes: list[int] = shape
    return sizes


def _to_array(data: Any, spec: TensorSpec) -> Tensor:
    """JSON data to an array of the datatype; refuses strings, ragged lists, lossy casts, NaN and infinity."""
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError) as ragged:
        raise InvalidInput(f"input {spec.name} is ragged", got=str(ragged), expected="lists of one length") from ragged
    dtype = DATATYPES[spec.datatype]
    if not _castable(found, dtype):
        raise InvalidInput(
            f"input {spec.name} has data of a wrong type or range", got=data, expected=f"{spec.datatype} values"
        )
    with np.errstate(over="ignore"):
        array = found.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput(f"input {spec.name} is not finite", got="inf or nan", expected=f"finite {spec.datatype}")
    return array


def _castable(found: Tensor, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return found.dtype.kind == "b"
    if dtype.kind == "f":
        return found.dtype.kind in "fiu"
    if found.dtype.kind not in "iu" or found.size == 0:
        return False
    limits = np.iinfo(dtype)
    return bool(int(found.min()) >= limits.min and int(found.max()) <= limits.max)


def _reshape(array: Tensor, shape: list[int], spec: TensorSpec) -> Tensor:
    wanted = math.prod(shape)
    if array.size != wanted:
        raise InvalidInput(
            f"input {spec.name} has a wrong amount of data", got=array.size, expected=f"{wanted} values for {shape}"
        )
    if array.ndim > 1 and list(array.shape) != shape:
        raise InvalidInput(
            f"input {spec.name} is nested unlike its shape", got=list(array.shape), expected=f"{shape} or flat"
        )
    return array.reshape(shape)


def encode_infer_response(*, request: InferRequest, model: str, version: str, outputs: Tensors) -> bytes:
    """The response body. Unprocessable if an output is not finite: inputs are, so these made the model overflow."""
    return to_json(
        {
            **({} if request.id is None else {"id": request.id}),
            "model_name": model,
            "model_version": version,
            "outputs": [_encode_tensor(name, outputs[name]) for name in request.outputs],
        }
    )


def _encode_tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise Unprocessable(
            f"input makes the model overflow: output {name} is not finite",
            got="nan" if np.isnan(tensor).any() else "inf",
            expected="inputs with finite outputs",
        )
    return {
        "name": name,
        "shape": list(tensor.shape),
        "datatype": datatype_of(tensor.dtype),
        "data": tensor.ravel().tolist(),
    }


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a NumPy type."""
    for name, known in DATATYPES.items():
        if known == dtype:
            return name
    raise PermanentError("tensor has a type that the protocol cannot carry", got=dtype, expected=" | ".join(DATATYPES))
