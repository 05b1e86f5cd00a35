"""How a run tells where it is: rank 0 writes, the driver announces, an operator may listen by HTTP.

Progress never stops a run: what cannot be delivered is dropped, with one warning.
"""

import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Final

from serving.errors import FlightpathError, NotFound
from serving.store_files import StoreFiles
from tasks.progress import announce

_LOG = logging.getLogger(__name__)
_POST_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.5
_DISTANT_POLL_S: Final = 5.0
PROGRESS_FILE: Final = "progress.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One report of rank 0."""

    step: int
    total_steps: int
    loss: float
    """Mean over the global batch."""
    samples_per_s: float
    """Over all workers, since this attempt's first step."""
    checkpoint_step: int
    """Newest committed checkpoint, 0 for none."""
    time: float
    """Seconds since the epoch."""
    resumed_from_step: int | None = None
    """Step of the checkpoint that this attempt began with; None for one that began from scratch."""
    skipped_checkpoints: list[dict[str, str]] = field(default_factory=list)
    """Torn or damaged checkpoints that were newer than that one: `name` and `reason`."""


Listener = Callable[[Progress], None]


def append_to(run: StoreFiles) -> Listener:
    """A listener that adds one JSON line per report to the run's progress file.

    A file at a distance is written whole each time: a run reports some sixty times, and stores cannot append.
    """
    if run.local:

        def append(progress: Progress) -> None:
            run.folder.mkdir(parents=True, exist_ok=True)
            with (run.folder / PROGRESS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(progress)) + "\n")

        return append
    content = bytearray()
    begun = False

    def write(progress: Progress) -> None:
        nonlocal begun
        try:
            if not begun:
                content.extend(_read(run))
                begun = True
            content.extend(json.dumps(asdict(progress)).encode() + b"\n")
            run.write(PROGRESS_FILE, bytes(content))
        except FlightpathError as away:
            _LOG.warning("progress was not written: %s", away)

    return write


def _read(run: StoreFiles) -> bytes:
    try:
        return run.read(PROGRESS_FILE)
    except NotFound:
        return b""


def post_to(environment: Mapping[str, str]) -> Listener | None:
    """A listener that posts to FLIGHTPATH_PROGRESS_URL with the token in FLIGHTPATH_PROGRESS_TOKEN, if set."""
    url = environment.get("FLIGHTPATH_PROGRESS_URL", "")
    if not url.startswith(("http://", "https://")):
        return None
    headers = {"Content-Type": "application/json"}
    if token := environment.get("FLIGHTPATH_PROGRESS_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"

    def listener(progress: Progress) -> None:
        body = json.dumps({"schema_version": 1, **asdict(progress)}).encode()
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_POST_TIMEOUT_S):
                pass
        except OSError as unreachable:
            _LOG.warning("progress was not delivered: %s", unreachable)

    return listener


@contextmanager
def announced(run: StoreFiles) -> Iterator[None]:
    """While the block runs, announce the newest report of the run, twice a second at most."""
    start = len(_read(run))
    finished = threading.Event()
    follower = threading.Thread(target=_follow, args=(run, start, finished), name="training-progress", daemon=True)
    follower.start()
    try:
        yield
    finally:
        finished.set()
        follower.join()


def read_reports(run: StoreFiles, *, start: int = 0) -> tuple[list[Progress], int]:
    """Whole lines from byte `start` on, and where the next read begins."""
    content = _read(run)[start:]
    whole = content[: content.rfind(b"\n") + 1]
    return [Progress(**json.loads(line)) for line in whole.splitlines()], start + len(whole)


def _follow(run: StoreFiles, start: int, finished: threading.Event) -> None:
    last = False
    while not last:
        last = finished.wait(_POLL_S if run.local else _DISTANT_POLL_S)
        try:
            reports, start = read_reports(run, start=start)
        except FlightpathError:
            # The run goes on whether or not anybody can watch it.
            continue
        if reports:
            newest = reports[-1]
            saved = {"checkpoint_step": newest.checkpoint_step} if newest.checkpoint_step else {}
            announce(
                "training",
                f"step {newest.step} of {newest.total_steps}",
                loss=newest.loss,
                samples_per_s=newest.samples_per_s,
                **saved,
            )
