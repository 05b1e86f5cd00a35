"""Golden sets of models that take tensors: inputs and the FP32 reference's answers, by the Open Inference Protocol.

Whether an answer is right is the kind's own affair: the class with the highest score, or values within a tolerance.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self
from urllib.parse import quote

import aiohttp
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from serving.bundle import TensorSpec
from serving.errors import BadUpstream, CorruptBundle
from serving.regions.deciding.gates import GateResult, judge_golden
from serving.regions.deciding.policy import PromotionPolicy

CLASSIFICATION: Final = "classification"
REGRESSION: Final = "regression"
INPUT_PREFIX: Final = "input."
"""Of the arrays of a model with several inputs: `input.<name>`; the only one of a model may be called `inputs`."""
_AGREED_SHARE: Final = 0.05
"""Of the reference's spread: values that differ by less are the same answer."""
_BATCH: Final = 16
_CONCURRENCY: Final = 4


class Truth(Protocol):
    """What is right, by sample."""

    @property
    def how(self) -> str:
        """How two answers are held to agree, in words."""
        ...

    def judge(self, outputs: NDArray[np.float64], samples: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of the first output (samples, values): which are right, and which are the reference's answer."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """The highest score names the class."""

    labels: NDArray[np.int64]
    reference: NDArray[np.int64]
    """Argmax of the FP32 reference's first output, (samples,)."""
    how: str = "argmax against the FP32 reference"

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        scores = tensors["reference"].reshape(len(tensors["reference"]), -1)
        if scores.shape[1] < 2:
            # One column is always the highest: whatever was answered would be right.
            raise CorruptBundle("golden set has no scores", got=list(scores.shape), expected="two classes or more")
        return cls(labels=tensors["labels"].astype(np.int64), reference=scores.argmax(axis=1))

    def judge(self, outputs: NDArray[np.float64], samples: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if outputs.shape[1] < 2:
            raise BadUpstream("model server gave no scores", got=list(outputs.shape), expected="two classes or more")
        answers = outputs.argmax(axis=1)
        right: NDArray[np.bool_] = answers == self.labels[samples]
        agreed: NDArray[np.bool_] = answers == self.reference[samples]
        return right, agreed


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """Every value of a sample lies within the tolerance of its target."""

    targets: NDArray[np.float64]
    """(samples, values)."""
    reference: NDArray[np.float64]
    tolerance: float
    """In the target's unit."""
    how: str = "within 5 % of the FP32 reference's spread"

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]]) -> Self:
        targets, reference = (_rows(tensors[name]) for name in ("targets", "reference"))
        tolerance = float(tensors["tolerance"].reshape(-1)[0])
        if targets.shape != reference.shape or not 0 < tolerance < np.inf:
            got = f"targets {targets.shape}, reference {reference.shape}, tolerance {tolerance}"
            raise CorruptBundle("golden set is uneven", got=got, expected="equal shapes and a tolerance > 0")
        return cls(targets=targets, reference=reference, tolerance=tolerance)

    def judge(self, outputs: NDArray[np.float64], samples: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if outputs.shape[1] != self.targets.shape[1]:
            raise BadUpstream("model server gave other values", got=outputs.shape[1], expected=self.targets.shape[1])
        spread = np.maximum(self.reference.std(axis=0), 1e-9)
        right: NDArray[np.bool_] = np.all(np.abs(outputs - self.targets[samples]) <= self.tolerance, axis=1)
        near = np.abs(outputs - self.reference[samples]) <= _AGREED_SHARE * spread
        agreed: NDArray[np.bool_] = np.all(near, axis=1)
        return right, agreed


def _rows(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1).astype(np.float64)


_TRUTHS: Final[Mapping[str, type[Classes] | type[Values]]] = {CLASSIFICATION: Classes, REGRESSION: Values}


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenInputs:
    """A golden set in memory."""

    KINDS: ClassVar[tuple[str, ...]] = tuple(_TRUTHS)
    replay_per_s: ClassVar[int] = 200

    specs: tuple[TensorSpec, ...]
    inputs: Mapping[str, NDArray[Any]]
    """By the input's name, (samples, *the input's shape without its batch dimension)."""
    truth: Truth
    reference_accuracy: float

    @classmethod
    def load(cls, path: Path, specs: tuple[TensorSpec, ...], reference_accuracy: float, kind: str) -> Self:
        """From a safetensors file with the inputs, `reference`, and `labels`, or `targets` and `tolerance`.

        Raises:
            CorruptBundle: it is not as its kind has it.
        """
        expected = "inputs, reference, and labels or targets and tolerance"
        try:
            tensors = load_file(path)
            inputs = {spec.name: _input(tensors, spec, only=len(specs) == 1) for spec in specs}
            truth: Truth = _TRUTHS[kind].of(tensors)
        except (OSError, KeyError, IndexError, SafetensorError) as broken:
            raise CorruptBundle("golden set cannot be read", got=repr(broken), expected=expected) from broken
        known = (*inputs.values(), *(tensors[name] for name in ("labels", "targets", "reference") if name in tensors))
        lengths = [len(array) for array in known]
        if len(set(lengths)) != 1 or lengths[0] == 0:
            raise CorruptBundle("golden set is uneven", got=lengths, expected="as many labels and answers as inputs")
        return cls(specs=specs, inputs=inputs, truth=truth, reference_accuracy=reference_accuracy)

    @property
    def _samples(self) -> int:
        return len(next(iter(self.inputs.values())))

    def _request(self, start: int, stop: int) -> dict[str, Any]:
        """An Open Inference Protocol request of the samples from `start` to `stop`."""
        batches = [(spec, self.inputs[spec.name][start:stop]) for spec in self.specs]
        return {
            "inputs": [
                {
                    "name": spec.name,
                    "datatype": spec.datatype,
                    "shape": list(batch.shape),
                    "data": batch.ravel().tolist(),
                }
                for spec, batch in batches
            ]
        }

    @property
    def _fixed_batch(self) -> int | None:
        """A model whose first dimension is fixed takes just that many samples."""
        return next((spec.shape[0] for spec in self.specs if spec.shape and spec.shape[0] > 0), None)

    def requests(self, model: str) -> list[tuple[str, dict[str, Any]]]:
        """Each sample as a request of its own, or as many at once as the model demands."""
        size = self._fixed_batch or 1
        starts = range(0, self._samples - size + 1, size)
        return [(_infer(model), self._request(start, start + size)) for start in starts]

    async def check(
        self, session: aiohttp.ClientSession, url: str, model: str, policy: PromotionPolicy
    ) -> list[GateResult]:
        """Accuracy against the reference's, and agreement with its answers."""
        right, agreed = await self._judged(session, url + _infer(model))
        return judge_golden(
            correct=int(right.sum()),
            agreed=int(agreed.sum()),
            samples=len(right),
            reference_accuracy=self.reference_accuracy,
            how=self.truth.how,
            policy=policy,
        )

    async def _judged(self, session: aiohttp.ClientSession, url: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Right, and in agreement with the reference, for each sample."""
        size, limit = self._fixed_batch or _BATCH, asyncio.Semaphore(_CONCURRENCY)

        async def judged(start: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
            stop = min(start + size, self._samples)
            async with limit, session.post(url, json=self._request(start, stop)) as response:
                if response.status != 200:
                    text = (await response.text())[:200]
                    raise BadUpstream("model server refused", got=f"HTTP {response.status}: {text}", expected="200")
                outputs = _first_output(await response.json(content_type=None), stop - start)
            return self.truth.judge(outputs, slice(start, stop))

        parts = await asyncio.gather(*map(judged, range(0, self._samples, size)))
        return np.concatenate([right for right, _ in parts]), np.concatenate([agreed for _, agreed in parts])


def _input(tensors: Mapping[str, NDArray[Any]], spec: TensorSpec, *, only: bool) -> NDArray[Any]:
    named = f"{INPUT_PREFIX}{spec.name}"
    return tensors["inputs"] if only and named not in tensors else tensors[named]


def _first_output(answer: Any, samples: int) -> NDArray[np.float64]:
    """(samples, values)."""
    try:
        return np.asarray(answer["outputs"][0]["data"], dtype=np.float64).reshape(samples, -1)
    except (KeyError, IndexError, TypeError, ValueError) as broken:
        raise BadUpstream("model server's answer cannot be read", got=repr(broken), expected="outputs") from broken


def _infer(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/infer"
