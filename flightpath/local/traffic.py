"""Users of the demo: real requests to every region's gateway, and the truth for their answers afterwards.

Requests carry the held-out images of the release's own data set. Until a region has answered for the
first time its refusals count as waiting; from then on every answer that is not 200 counts as failed.
"""

import argparse
import asyncio
import itertools
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from serving.errors import FlightpathError
from serving.files import canonical_json, write_atomically
from serving.regions.topology import Region, load_topology
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.module import fetch_dataset, read_split
from tasks.ledger import Ledger

_WAIT_S = 0.25
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_PREDICT_EVERY = 4


@dataclass(slots=True)
class RegionTraffic:
    """What one region's users saw."""

    sent: int = 0
    failed: int = 0
    labelled: int = 0
    correct: int = 0
    first_answer_at: float | None = None
    by_version: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Failures by cause, for whoever has to explain them."""

    def answered(self, version: str, *, correct: bool) -> None:
        self.sent += 1
        self.labelled += 1
        self.correct += correct
        self.by_version[version] = self.by_version.get(version, 0) + 1

    def failure(self, cause: str) -> None:
        self.sent += 1
        self.failed += 1
        self.failures[cause] = self.failures.get(cause, 0) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One request: a single image (float32, the model's input shape without the batch) and its class."""

    image: list[float]
    shape: list[int]
    label: int


def endless_samples(images: np.ndarray, labels: np.ndarray, *, start: int) -> Iterator[Sample]:
    """The images in their order, again and again; `start` keeps regions from asking in step."""
    order = itertools.cycle(range(len(images)))
    for index in itertools.islice(order, start % len(images), None):
        yield Sample(image=images[index].ravel().tolist(), shape=[1, *images[index].shape], label=int(labels[index]))


class Users:
    """Paced requests to one region over keep-alive connections."""

    def __init__(self, region: Region, model: str, samples: Iterator[Sample], rate_per_s: float) -> None:
        self._region, self._model, self._samples = region, model, samples
        self._pause_s = 1.0 / rate_per_s
        self.traffic = RegionTraffic()

    async def run(self, http: aiohttp.ClientSession, stopping: asyncio.Event) -> None:
        """Send until told to stop; a request that was begun is finished."""
        asked: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        due = loop.time()
        for count, sample in enumerate(self._samples):
            if stopping.is_set():
                break
            task = asyncio.create_task(self._ask(http, sample, by_predict=count % _PREDICT_EVERY == 0))
            asked.add(task)
            task.add_done_callback(asked.discard)
            waiting = self.traffic.first_answer_at is None
            due = max(due + (_WAIT_S if waiting else self._pause_s), loop.time())
            await _pause(stopping, due - loop.time())
        await asyncio.gather(*asked)

    async def _ask(self, http: aiohttp.ClientSession, sample: Sample, *, by_predict: bool) -> None:
        path, body = self._request(sample, by_predict)
        try:
            async with http.post(f"{self._region.gateway_url}{path}", json=body) as response:
                status, headers = response.status, response.headers
                answer: dict[str, Any] = await response.json() if status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._failed(type(error).__name__)
            return
        if status != 200:
            self._failed(f"HTTP {status}")
            return
        if self.traffic.first_answer_at is None:
            self.traffic.first_answer_at = time.time()
        correct = _answered_class(answer) == sample.label
        self.traffic.answered(headers.get("x-flightpath-version", "unknown"), correct=correct)
        await self._tell_truth(http, headers.get("x-request-id", ""), sample.label)

    def _request(self, sample: Sample, by_predict: bool) -> tuple[str, dict[str, object]]:
        if by_predict:
            nested = np.asarray(sample.image, dtype=np.float32).reshape(sample.shape).tolist()
            return "/v1/predict", {"model": self._model, "inputs": nested}
        tensor = {"name": "images", "shape": sample.shape, "datatype": "FP32", "data": sample.image}
        return f"/v2/models/{self._model}/infer", {"inputs": [tensor]}

    def _failed(self, cause: str) -> None:
        if self.traffic.first_answer_at is not None:
            self.traffic.failure(cause)

    async def _tell_truth(self, http: aiohttp.ClientSession, request_id: str, label: int) -> None:
        """Feedback is a courtesy to the gateway: its loss is no failed request."""
        body = {"request_id": request_id, "labels": [label]}
        try:
            async with http.post(f"{self._region.gateway_url}/v1/feedback", json=body) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return


def _answered_class(answer: dict[str, Any]) -> int:
    """The class that an infer or a predict answer names; -1 for an answer of neither shape."""
    if "predictions" in answer:
        return int(answer["predictions"][0]["label"])
    scores = answer["outputs"][0]["data"] if answer.get("outputs") else []
    return int(np.argmax(scores)) if len(scores) else -1


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), timeout=max(seconds, 0.0))
    except TimeoutError:
        return


async def drive(users: list[Users], report: Path, stopping: asyncio.Event) -> None:
    """Run every region's users and keep `report` up to date, once a second and at the end."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        running = [asyncio.create_task(user.run(http, stopping)) for user in users]
        while not stopping.is_set():
            await _pause(stopping, 1.0)
            _write(report, users)
        await asyncio.gather(*running)
    _write(report, users)


def _write(report: Path, users: list[Users]) -> None:
    write_atomically(report, canonical_json({user._region.name: asdict(user.traffic) for user in users}))


async def _dataset(store: ArtifactStore, release_id: str, stopping: asyncio.Event) -> Dataset | None:
    """The release's data set, as soon as the data stage has written it."""
    while not stopping.is_set():
        dataset = Ledger(store, release_id).read("data", Dataset)
        if dataset is not None:
            return dataset
        await _pause(stopping, _WAIT_S)
    return None


async def _run(arguments: argparse.Namespace) -> None:
    settings = Settings()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    topology = load_topology(settings)
    store = ArtifactStore(settings.store_uri)
    dataset = await _dataset(store, arguments.release_id, stopping)
    if dataset is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        split = read_split(fetch_dataset(dataset.uri, Path(scratch) / "data", sha256=dataset.sha256), "test")
    users = [
        Users(
            region, arguments.model, endless_samples(split["images"], split["labels"], start=97 * index), arguments.rate
        )
        for index, region in enumerate(topology.regions)
    ]
    await drive(users, arguments.report, stopping)


def totals(report: Path) -> tuple[int, int, dict[str, RegionTraffic]]:
    """Requests sent, requests failed, and each region's part, from a report file."""
    if not report.exists():
        return 0, 0, {}
    regions = {name: RegionTraffic(**raw) for name, raw in json.loads(report.read_bytes()).items()}
    counted = Counter(sent=0, failed=0)
    for traffic in regions.values():
        counted.update(sent=traffic.sent, failed=traffic.failed)
    return counted["sent"], counted["failed"], regions


def main() -> None:
    """`python -m flightpath.local.traffic --model M --release-id ID --report FILE [--rate 40]`."""
    parser = argparse.ArgumentParser(description="send a release's held-out images to every region")
    parser.add_argument("--model", required=True)
    parser.add_argument("--release-id", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=40.0, help="requests per second and region")
    try:
        asyncio.run(_run(parser.parse_args()))
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
