"""`/v1/predict`: plain samples in, labels out, over the same route as every other request.

Samples become a v2 request for the model's single input, whose name and shape the backends tell once.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import to_json

from serving.errors import BadUpstream, InvalidInput, RetryableError
from serving.gateway.answers import argmax, score_rows, top_probability
from serving.gateway.routing import Backend, RouteInForce, unserved
from serving.gateway.upstream import Upstream

_MAX_DEPTH: Final = 16


class ModelSignatures:
    """Metadata of models by backend, fetched once per backend and address."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._known: dict[tuple[str, str, str], dict[str, Any]] = {}

    async def of(self, in_force: RouteInForce, *, hop: bool) -> dict[str, Any]:
        """The metadata that the first backend able to tell it has; RetryableError (503) if none can."""
        describers = in_force.describers(hop=hop)
        if not describers:
            raise unserved(in_force.route)
        failures: list[str] = []
        for backend in describers:
            try:
                return await self._fetch(in_force.route.model, backend)
            except RetryableError as failed:
                failures.append(str(failed))
        raise RetryableError(f"no backend of {in_force.route.model} told its metadata", got=failures)

    async def _fetch(self, model: str, backend: Backend) -> dict[str, Any]:
        key = (model, backend.id, backend.url)
        if key not in self._known:
            self._known[key] = await self._upstream.metadata(backend, model)
        return self._known[key]

    def retain(self, model: str, backends: Sequence[Backend]) -> None:
        """Forget what backends told that the model's route no longer names."""
        routed = {(backend.id, backend.url) for backend in backends}
        self._known = {key: value for key, value in self._known.items() if key[0] != model or key[1:] in routed}


def build_infer_request(samples: Any, metadata: dict[str, Any]) -> bytes:
    """A v2 request body of `samples` (a list, one entry per row) for the model's single input.

    Samples may be nested as the model's shape is, or flat: [rows, 64] suits an input of [-1, 1, 8, 8].
    """
    if not isinstance(samples, list) or not samples:
        raise InvalidInput("inputs is malformed", got=samples, expected="a list of samples, at least one")
    name, datatype, spec = _single_input(metadata)
    found = _shape_of(samples)
    inner = spec[1:]
    if -1 in inner or found == [len(samples), *inner]:
        shape, data = found, samples
    else:
        # The model server checks the amount of data against this shape.
        shape, data = [len(samples), *inner], _flatten(samples)
    return to_json({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]})


def _single_input(metadata: dict[str, Any]) -> tuple[str, str, list[int]]:
    try:
        inputs = metadata["inputs"]
        name, datatype, shape = inputs[0]["name"], inputs[0]["datatype"], list(inputs[0]["shape"])
    except (KeyError, IndexError, TypeError) as broken:
        raise BadUpstream("model's metadata is malformed", got=metadata, expected="inputs with a shape") from broken
    if len(inputs) != 1 or not shape:
        raise InvalidInput(
            "model has not one batched input", got=f"{len(inputs)} inputs", expected="one; call /v2/models/…/infer"
        )
    return name, datatype, shape


def _shape_of(samples: list[Any]) -> list[int]:
    shape: list[int] = []
    level: Any = samples
    while isinstance(level, list) and level:
        shape.append(len(level))
        level = level[0]
        if len(shape) > _MAX_DEPTH:
            raise InvalidInput("inputs is nested too deeply", expected=f"<= {_MAX_DEPTH} levels")
    return shape


def _flatten(nested: list[Any], depth: int = 0) -> list[Any]:
    if depth > _MAX_DEPTH:
        raise InvalidInput("inputs is nested too deeply", expected=f"<= {_MAX_DEPTH} levels")
    flat: list[Any] = []
    for entry in nested:
        if isinstance(entry, list):
            flat += _flatten(entry, depth + 1)
        else:
            flat.append(entry)
    return flat


def label_predictions(body: bytes, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest class of each row and its softmax probability; without classes, its index."""
    return [{"label": _label(argmax(scores), classes), "score": top_probability(scores)} for scores in score_rows(body)]


def _label(index: int, classes: Sequence[str]) -> str:
    return classes[index] if index < len(classes) else str(index)
