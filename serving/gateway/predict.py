"""`/v1/predict`: plain samples in, labels out, over the same route as every other request.

Samples become a v2 request for the model's single input, whose name and shape the backends tell once. Who cannot
tell is judged by the same table as every attempt, and passed over as one; but no user's request, and so no sample.
"""

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import to_json

from serving.errors import BadUpstream, InvalidInput, RetryableError
from serving.gateway import blame
from serving.gateway.answers import argmax, score_rows, top_probability
from serving.gateway.attempts import MAX_SERVERS, Books, all_failed
from serving.gateway.calls import Call
from serving.gateway.routing import RouteInForce, unserved
from serving.gateway.upstream import Upstream
from serving.routes import Backend

_MAX_DEPTH: Final = 16


class ModelSignatures:
    """Metadata of models by backend, fetched once per backend and address."""

    def __init__(self, upstream: Upstream, books: Books) -> None:
        self._upstream = upstream
        self._books = books
        self._known: dict[tuple[str, str, str], dict[str, Any]] = {}

    async def of(self, in_force: RouteInForce, call: Call) -> dict[str, Any]:
        """The metadata that the first backend able to tell it has; RetryableError if none can."""
        route, ejection = in_force.route, self._books.ejection
        describers = in_force.describers(hop=call.hop)
        if not describers:
            raise unserved(route)
        avoided = ejection.avoided(route.model, route.backends)
        failures: list[RetryableError] = []
        asked = 0
        for backend in sorted(describers, key=lambda describer: describer.id in avoided):
            key = (route.model, backend.id, backend.url)
            if key in self._known:
                return self._known[key]
            try:
                headers = call.headers_for(backend)
                known = self._known[key] = await self._upstream.metadata(backend, route.model, headers)
                return known
            except RetryableError as failed:
                failures.append(failed)
                asked += failed.servers
                self._blame(route.model, backend, failed)
            if asked >= MAX_SERVERS:
                break
        raise all_failed(route.model, failures)

    def _blame(self, model: str, backend: Backend, failed: RetryableError) -> None:
        self._books.metrics.count_error(model, backend.id, failed.code)
        if self._books.ejection.ended(model, backend, blame.of_error(failed), probe=False):
            self._books.ledger.counters(model, backend.id).ejections += 1
            self._books.metrics.count_ejection(model, backend.id)

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
