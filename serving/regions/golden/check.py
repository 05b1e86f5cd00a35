"""The golden set put to a model server: as a gate before the canary, and as requests when users send too few.

What the samples are and how answers are judged is the kind's own affair: tensors with labels or target values
(`inputs.py`) or the texts of a language model (`texts.py`).
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp

from serving.bundle import Manifest
from serving.errors import BadUpstream
from serving.regions.deciding.gates import GateResult, golden_not_judged, server_failed
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.timing import DEFAULT_TIMING
from serving.regions.golden.inputs import GoldenInputs
from serving.regions.golden.texts import LANGUAGE_MODEL, GoldenTexts

_CONCURRENCY: Final = 4
_TIMEOUT_S: Final = DEFAULT_TIMING.golden_timeout_s


class Golden(Protocol):
    """A golden set in memory."""

    @property
    def replay_per_s(self) -> int:
        """Most requests per second that may be replayed: enough for a small step, far below what servers bear."""
        ...

    async def check(
        self, session: aiohttp.ClientSession, url: str, model: str, policy: PromotionPolicy
    ) -> list[GateResult]:
        """Put all of it to the server at `url` and judge; raises aiohttp's errors and BadUpstream."""
        ...

    def requests(self, model: str) -> list[tuple[str, dict[str, Any]]]:
        """Path and body of users' requests made from the samples."""
        ...


def load_golden(folder: Path, manifest: Manifest) -> Golden | None:
    """From a verified bundle; None when it has no golden set of a kind known here. Raises CorruptBundle."""
    golden = manifest.golden
    if golden is not None and golden.kind in GoldenInputs.KINDS and manifest.inputs:
        path, specs = folder / golden.file.path, tuple(manifest.inputs)
        return GoldenInputs.load(path, specs, golden.reference_accuracy, golden.kind)
    if golden is not None and golden.kind == LANGUAGE_MODEL:
        return GoldenTexts.load(folder / golden.file.path)
    return None


async def check_golden(golden: Golden | None, url: str, model: str, policy: PromotionPolicy) -> list[GateResult]:
    """Put the whole set to one model server at `url` and judge its answers."""
    if golden is None:
        return [golden_not_judged("the bundle has no golden set of a kind known here")]
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            return await golden.check(session, url.rstrip("/"), model, policy)
    except (aiohttp.ClientError, TimeoutError, OSError, BadUpstream) as broken:
        return [server_failed(f"the golden set got no answer: {str(broken) or type(broken).__name__}")]


class Replay:
    """Golden samples as users' requests through a region's gateway, marked synthetic and at a bounded rate."""

    def __init__(self, golden: Golden, gateway_url: str, model: str, *, credential: Callable[[], str]) -> None:
        """`credential` shows the gateway that an agent replays: without it the mark of a replay is not believed, and
        it would count as a user's. It is asked each time: its token may be exchanged meanwhile."""
        self._credential = credential
        self._requests: Iterator[tuple[str, dict[str, Any]]] = itertools.cycle(golden.requests(model))
        self._base = gateway_url.rstrip("/")
        self._per_s = golden.replay_per_s

    async def send(self, requests: int, *, at_most_s: float = 1.0) -> None:
        """Send `requests`, or as many as the rate allows in `at_most_s`; the gates judge what they are answered."""
        left = min(requests, round(self._per_s * at_most_s))
        loop = asyncio.get_running_loop()
        marks = {"x-flightpath-synthetic": "1", "x-flightpath-credential": self._credential()}
        async with aiohttp.ClientSession(headers=marks, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            while left > 0:
                wave, left, began = min(left, _CONCURRENCY), left - _CONCURRENCY, loop.time()
                await asyncio.gather(*(self._send_one(session) for _ in range(wave)))
                await asyncio.sleep(max(0.0, wave / self._per_s - (loop.time() - began)))

    async def _send_one(self, session: aiohttp.ClientSession) -> None:
        path, body = next(self._requests)
        try:
            async with session.post(self._base + path, json=body) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            # A gateway that does not answer shows in the counters, which is where it is judged.
            return
