"""A classifier's golden set: labelled inputs with the FP32 reference's answers, put to the Open Inference Protocol."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self
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
_BATCH: Final = 16
_CONCURRENCY: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenInputs:
    """A classification golden set in memory."""

    replay_per_s: ClassVar[int] = 200

    spec: TensorSpec
    inputs: NDArray[Any]
    """(samples, *the input's shape without its batch dimension)."""
    labels: NDArray[np.int64]
    reference: NDArray[np.int64]
    """Argmax of the FP32 reference's first output, (samples,)."""
    reference_accuracy: float

    @classmethod
    def load(cls, path: Path, spec: TensorSpec, reference_accuracy: float) -> Self:
        """From a safetensors file with `inputs`, `labels` and `reference`; raises CorruptBundle."""
        try:
            tensors = load_file(path)
            inputs, labels, reference = tensors["inputs"], tensors["labels"], tensors["reference"]
        except (OSError, KeyError, SafetensorError) as broken:
            raise CorruptBundle(
                "golden set cannot be read", got=repr(broken), expected="inputs, labels, reference"
            ) from broken
        if not len(inputs) == len(labels) == len(reference) or len(inputs) == 0:
            lengths = [len(inputs), len(labels), len(reference)]
            raise CorruptBundle("golden set is uneven", got=lengths, expected="as many labels and answers as inputs")
        return cls(
            spec=spec,
            inputs=inputs,
            labels=labels.astype(np.int64),
            reference=reference.reshape(len(reference), -1).argmax(axis=1),
            reference_accuracy=reference_accuracy,
        )

    def _request(self, start: int, stop: int) -> dict[str, Any]:
        """An Open Inference Protocol request of the samples from `start` to `stop`."""
        batch = self.inputs[start:stop]
        tensor = {"name": self.spec.name, "datatype": self.spec.datatype, "shape": list(batch.shape)}
        return {"inputs": [{**tensor, "data": batch.ravel().tolist()}]}

    @property
    def _fixed_batch(self) -> int | None:
        """A model whose first dimension is fixed takes just that many samples."""
        return self.spec.shape[0] if self.spec.shape and self.spec.shape[0] > 0 else None

    def requests(self, model: str) -> list[tuple[str, dict[str, Any]]]:
        """Each sample as a request of its own, or as many at once as the model demands."""
        size = self._fixed_batch or 1
        starts = range(0, len(self.inputs) - size + 1, size)
        return [(_infer(model), self._request(start, start + size)) for start in starts]

    async def check(
        self, session: aiohttp.ClientSession, url: str, model: str, policy: PromotionPolicy
    ) -> list[GateResult]:
        """Accuracy against the reference's, and agreement with its answers."""
        answers = await self._classify(session, url + _infer(model))
        return judge_golden(
            correct=int((answers == self.labels).sum()),
            agreed=int((answers == self.reference).sum()),
            samples=len(answers),
            reference_accuracy=self.reference_accuracy,
            policy=policy,
        )

    async def _classify(self, session: aiohttp.ClientSession, url: str) -> NDArray[np.int64]:
        """Argmax of the first output for each sample, (samples,)."""
        size, limit = self._fixed_batch or _BATCH, asyncio.Semaphore(_CONCURRENCY)

        async def classify(start: int) -> NDArray[np.int64]:
            stop = min(start + size, len(self.inputs))
            async with limit, session.post(url, json=self._request(start, stop)) as response:
                if response.status != 200:
                    text = (await response.text())[:200]
                    raise BadUpstream("model server refused", got=f"HTTP {response.status}: {text}", expected="200")
                return _argmax(await response.json(content_type=None), stop - start)

        return np.concatenate(await asyncio.gather(*map(classify, range(0, len(self.inputs), size))))


def _argmax(answer: Any, samples: int) -> NDArray[np.int64]:
    try:
        scores = np.asarray(answer["outputs"][0]["data"], dtype=np.float64).reshape(samples, -1)
    except (KeyError, IndexError, TypeError, ValueError) as broken:
        raise BadUpstream("model server's answer cannot be read", got=repr(broken), expected="outputs") from broken
    answers: NDArray[np.int64] = scores.argmax(axis=1)
    return answers


def _infer(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/infer"
