"""Users of the demo: real requests to every region's gateway, counted by what their users saw.

Until a region has answered for the first time its refusals count as waiting; from then on every
question that is not answered counts as failed.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp

from flightpath.local.questions import Answer, Questions, Unanswered, questions_for
from serving.errors import FlightpathError
from serving.files import canonical_json, write_atomically
from serving.regions.places.topology import Region, load_topology
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.dataset import fetch_dataset
from tasks.ledger import Ledger

_WAIT_S = 0.25
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_REGIONS_APART = 97
"""Each region's users begin this many samples after the one's before."""


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

    def answered(self, answer: Answer) -> None:
        self.sent += 1
        self.by_version[answer.version] = self.by_version.get(answer.version, 0) + 1
        if answer.correct is not None:
            self.labelled += 1
            self.correct += answer.correct

    def failure(self, cause: str) -> None:
        self.sent += 1
        self.failed += 1
        self.failures[cause] = self.failures.get(cause, 0) + 1


class Users:
    """Paced questions to one region over keep-alive connections."""

    def __init__(self, region: Region, questions: Questions, rate_per_s: float) -> None:
        self.region = region
        self._questions = questions
        self._pause_s = 1.0 / rate_per_s
        self.traffic = RegionTraffic()

    async def run(self, http: aiohttp.ClientSession, stopping: asyncio.Event) -> None:
        """Ask until told to stop; a question that was begun is finished."""
        asked: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stopping.is_set():
            task = asyncio.create_task(self._ask(http))
            asked.add(task)
            task.add_done_callback(asked.discard)
            waiting = self.traffic.first_answer_at is None
            due = max(due + (_WAIT_S if waiting else self._pause_s), loop.time())
            await _pause(stopping, due - loop.time())
        await asyncio.gather(*asked)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        try:
            answer = await self._questions.ask(http, self.region.gateway_url)
        except (Unanswered, aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError) as error:
            if self.traffic.first_answer_at is not None:
                self.traffic.failure(str(error) if isinstance(error, Unanswered) else type(error).__name__)
            return
        if self.traffic.first_answer_at is None:
            self.traffic.first_answer_at = time.time()
        self.traffic.answered(answer)


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
    write_atomically(report, canonical_json({user.region.name: asdict(user.traffic) for user in users}))


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
    dataset = await _dataset(ArtifactStore(settings.store_uri), arguments.release_id, stopping)
    if dataset is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        fetched = fetch_dataset(dataset.uri, Path(scratch) / "data", sha256=dataset.sha256)
        users = []
        for index, region in enumerate(load_topology(settings).regions):
            questions = questions_for(fetched, arguments.model, start=_REGIONS_APART * index)
            users.append(Users(region, questions, arguments.rate or questions.default_rate_per_s))
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
    parser = argparse.ArgumentParser(description="ask every region's gateway about a release's held-out data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--release-id", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second and region; 0: the kind's own")
    try:
        asyncio.run(_run(parser.parse_args()))
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
