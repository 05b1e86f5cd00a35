"""The golden set put to a model server: as a gate before the canary, and as requests when users send too few."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from serving.bundle import Manifest, TensorSpec
from serving.errors import BadUpstream, CorruptBundle
from serving.regions.gates import GateResult, golden_not_judged, judge_golden, server_failed
from serving.regions.policy import PromotionPolicy

CLASSIFICATION: Final = "classification"
_BATCH: Final = 16
_CONCURRENCY: Final = 4
_REPLAY_PER_S: Final = 200
"""Bound on replayed requests: enough for a 5 % step within seconds, far below what a gateway bears."""
_TIMEOUT_S: Final = 30.0
_HEADERS: Final = {"x-flightpath-synthetic": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenInputs:
    """A classification golden set in memory."""

    spec: TensorSpec
    inputs: NDArray[Any]
    """(samples, *the input's shape without its batch dimension)."""
    labels: NDArray[np.int64]
    reference: NDArray[np.int64]
    """Argmax of the FP32 reference's first output, (samples,)."""
    reference_accuracy: float

    @classmethod
    def load(cls, folder: Path, manifest: Manifest) -> "Self | None":
        """From a verified bundle; None when it has no golden set of a kind this gate knows. Raises CorruptBundle."""
        golden = manifest.golden
        if golden is None or golden.kind != CLASSIFICATION or not manifest.inputs:
            return None
        try:
            tensors = load_file(folder / golden.file.path)
            inputs, labels, reference = tensors["inputs"], tensors["labels"], tensors["reference"]
        except (OSError, KeyError, SafetensorError) as broken:
            raise CorruptBundle(
                "golden set cannot be read", got=repr(broken), expected="inputs, labels, reference"
            ) from broken
        if not len(inputs) == len(labels) == len(reference) or len(inputs) == 0:
            lengths = [len(inputs), len(labels), len(reference)]
            raise CorruptBundle("golden set is uneven", got=lengths, expected="as many labels and answers as inputs")
        return cls(
            spec=manifest.inputs[0],
            inputs=inputs,
            labels=labels.astype(np.int64),
            reference=reference.reshape(len(reference), -1).argmax(axis=1),
            reference_accuracy=golden.reference_accuracy,
        )

    def request(self, start: int, stop: int) -> dict[str, Any]:
        """An Open Inference Protocol request of the samples from `start` to `stop`."""
        batch = self.inputs[start:stop]
        tensor = {"name": self.spec.name, "datatype": self.spec.datatype, "shape": list(batch.shape)}
        return {"inputs": [{**tensor, "data": batch.ravel().tolist()}]}


async def check_golden(golden: GoldenInputs | None, url: str, model: str, policy: PromotionPolicy) -> list[GateResult]:
    """Put the whole set to one model server at `url` and judge its answers."""
    if golden is None:
        return [golden_not_judged("the bundle has no golden set of labelled inputs")]
    try:
        answers = await _classify(golden, url, model)
    except (aiohttp.ClientError, TimeoutError, OSError, BadUpstream) as broken:
        return [server_failed(f"the golden set got no answer: {str(broken) or type(broken).__name__}")]
    return judge_golden(
        correct=int((answers == golden.labels).sum()),
        agreed=int((answers == golden.reference).sum()),
        samples=len(answers),
        reference_accuracy=golden.reference_accuracy,
        policy=policy,
    )


async def _classify(golden: GoldenInputs, url: str, model: str) -> NDArray[np.int64]:
    """Argmax of the first output for each sample, (samples,)."""
    bounds = list(range(0, len(golden.inputs), _batch_size(golden.spec)))
    limit = asyncio.Semaphore(_CONCURRENCY)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:

        async def classify(start: int) -> NDArray[np.int64]:
            stop = min(start + _batch_size(golden.spec), len(golden.inputs))
            async with limit, session.post(_infer(url, model), json=golden.request(start, stop)) as response:
                if response.status != 200:
                    text = (await response.text())[:200]
                    raise BadUpstream("model server refused", got=f"HTTP {response.status}: {text}", expected="200")
                return _argmax(await response.json(content_type=None), stop - start)

        return np.concatenate(await asyncio.gather(*(classify(start) for start in bounds)))


def _batch_size(spec: TensorSpec) -> int:
    """A model whose first dimension is fixed takes just that many samples."""
    return _BATCH if not spec.shape or spec.shape[0] < 1 else spec.shape[0]


def _argmax(answer: Any, samples: int) -> NDArray[np.int64]:
    try:
        scores = np.asarray(answer["outputs"][0]["data"], dtype=np.float64).reshape(samples, -1)
    except (KeyError, IndexError, TypeError, ValueError) as broken:
        raise BadUpstream("model server's answer cannot be read", got=repr(broken), expected="outputs") from broken
    answers: NDArray[np.int64] = scores.argmax(axis=1)
    return answers


def _infer(url: str, model: str) -> str:
    return f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}/infer"


class Replay:
    """Golden inputs as users' requests through a region's gateway, marked synthetic and at a bounded rate."""

    def __init__(self, golden: GoldenInputs, gateway_url: str, model: str) -> None:
        size = _batch_size(golden.spec) if golden.spec.shape and golden.spec.shape[0] > 0 else 1
        starts = range(0, len(golden.inputs) - size + 1, size)
        self._requests: Iterator[dict[str, Any]] = itertools.cycle(golden.request(s, s + size) for s in starts)
        self._url = _infer(gateway_url, model)

    async def send(self, requests: int, *, at_most_s: float = 1.0) -> None:
        """Send `requests`, or as many as the rate allows in `at_most_s`; the gates judge what they are answered."""
        left = min(requests, round(_REPLAY_PER_S * at_most_s))
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(headers=_HEADERS, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            while left > 0:
                wave, left, began = min(left, _CONCURRENCY), left - _CONCURRENCY, loop.time()
                await asyncio.gather(*(self._send_one(session) for _ in range(wave)))
                await asyncio.sleep(max(0.0, wave / _REPLAY_PER_S - (loop.time() - began)))

    async def _send_one(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(self._url, json=next(self._requests)) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            # A gateway that does not answer shows in the counters, which is where it is judged.
            return
