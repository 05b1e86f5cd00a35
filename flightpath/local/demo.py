"""The main job on embedded defaults: release the next version to three local regions under real traffic.

The release itself is `pyflyte run workflows/release.py release`, as any user would start it; this
module adds users who send requests meanwhile, a view of the progress and a summary.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from flightpath.local import regions, traffic
from flightpath.local.state import StateRoot, running_code
from flightpath.local.summary import DemoResult, show
from flightpath.local.view import ProgressFile, ReleaseView, Screen
from serving.errors import FlightpathError, PermanentError
from serving.files import canonical_json, write_atomically
from serving.regions.topology import load_topology
from serving.releases import check_name
from serving.settings import Settings
from serving.store import ArtifactStore
from tasks.artifacts import Dataset
from tasks.data.module import fetch_dataset, read_split
from tasks.ledger import Ledger
from tasks.promotion.readiness import check_ports
from tasks.release.plan import check_regions
from tasks.release.report import ReleaseReport, report_from_json
from tasks.training.recipes import get_recipe

_PROJECT = Path(__file__).resolve().parent.parent.parent
_TICK_S = 0.2
_STOP_S = 15.0


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    recipe: str = "resnet-digits"
    release_id: str = ""
    """By default `<recipe>-<n>`, the next number each time."""
    seed: int | None = None
    """By default the release's number."""
    regions: list[str] = field(default_factory=lambda: ["us-east", "eu-west", "asia-pacific"])
    rate_per_s: float = 40.0
    """Requests per second that the users of each region send."""
    policy: str = ""
    """PromotionPolicy as JSON, or a path to it."""


def run_demo(settings: Settings, options: DemoOptions, console: Console) -> None:
    """Run one release to its end and print what came of it; raises FlightpathError when it did not go live."""
    recipe = get_recipe(options.recipe)
    topology = load_topology(settings)
    check_regions(options.regions, topology)
    check_ports(topology, settings)
    root = StateRoot.of(settings)
    supervisor = root.record("supervisor")
    if supervisor is not None and supervisor.detail.get("code") != running_code():
        # Regions of older code are replaced before anything is released to them.
        regions.up(settings, lambda line: console.print(line, highlight=False))
    store = ArtifactStore(settings.store_uri)
    number = _next_number(store, recipe.name)
    release_id = options.release_id or f"{recipe.name}-{number}"
    check_name("release id", release_id)
    seed = number if options.seed is None else options.seed
    began = time.time()
    scratch = root.path / "demo" / release_id
    scratch.mkdir(parents=True, exist_ok=True)
    report_file = scratch / "traffic.json"
    report_file.unlink(missing_ok=True)
    with _users(root, recipe.name, release_id, report_file, options.rate_per_s):
        failure = _release(root, scratch, release_id, seed, options, console)
    report = _report(store, release_id)
    if failure is not None:
        raise failure
    if report is None:
        raise PermanentError("the release left no report", got=release_id, expected="releases/<id>/report.json")
    _write_example(store, release_id, recipe.name, scratch)
    sent, failed, seen = traffic.totals(report_file)
    show(
        console,
        DemoResult(
            report=report,
            topology=topology,
            settings=settings,
            seconds=time.time() - began,
            requests_sent=sent,
            requests_failed=failed,
            traffic=seen,
        ),
    )
    if failed:
        raise PermanentError("requests failed during the release", got=f"{failed} of {sent}", expected="0")


def _next_number(store: ArtifactStore, model: str) -> int:
    """The first number whose release has no report: an interrupted one is taken up again."""
    number = 1
    while Ledger(store, f"{model}-{number}").raw("report") is not None:
        number += 1
    return number


def _write_example(store: ArtifactStore, release_id: str, model: str, scratch: Path) -> None:
    """`predict.json`: one held-out sample as the body of the predict command."""
    dataset = Ledger(store, release_id).read("data", Dataset)
    if dataset is None:
        return
    split = read_split(fetch_dataset(dataset.uri, scratch / "data", sha256=dataset.sha256), "test")
    body = {"model": model, "inputs": split["images"][:1].tolist()}
    write_atomically(scratch / "predict.json", json.dumps(body).encode())


def _report(store: ArtifactStore, release_id: str) -> ReleaseReport | None:
    raw = Ledger(store, release_id).raw("report")
    return None if raw is None else report_from_json(raw)


@contextmanager
def _users(root: StateRoot, model: str, release_id: str, report: Path, rate_per_s: float) -> Iterator[None]:
    """Traffic in a process of its own, ended (with its last answers counted) on the way out."""
    command = [sys.executable, "-m", "flightpath.local.traffic", "--model", model, "--release-id", release_id]
    command += ["--report", str(report), "--rate", str(rate_per_s)]
    root.logs.mkdir(parents=True, exist_ok=True)
    with (root.logs / "traffic.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _release(
    root: StateRoot, scratch: Path, release_id: str, seed: int, options: DemoOptions, console: Console
) -> FlightpathError | None:
    """`pyflyte run` in a process of its own; returns why it failed, or None."""
    progress = scratch / "progress.jsonl"
    progress.unlink(missing_ok=True)
    log = root.logs / f"release-{release_id}.log"
    command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", "workflows/release.py", "release"]
    command += ["--recipe", options.recipe, "--release_id", release_id, "--seed", str(seed)]
    command += ["--regions", canonical_json(options.regions).decode()]
    if options.policy:
        command += ["--policy", options.policy]
    environment = {**os.environ, "FLIGHTPATH_PROGRESS_FILE": str(progress), "FLIGHTPATH_HOME": str(root.path)}
    view = ReleaseView(title=f"flightpath  release {release_id}")
    with log.open("wb") as output, Screen(console, view) as screen:
        process = subprocess.Popen(
            command, cwd=_PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            _follow(process, ProgressFile(progress), screen, view, scratch / "traffic.json")
        except BaseException:
            # Ctrl-C or SIGTERM: the connector's handler aborts the promotion, and that takes a moment.
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
            raise
    return None if process.returncode == 0 else _failure(log, process.returncode)


def _follow(
    process: subprocess.Popen[bytes], progress: ProgressFile, screen: Screen, view: ReleaseView, users: Path
) -> None:
    while True:
        running = process.poll() is None
        for news in progress.news():
            screen.take(news)
        sent, failed, _ = traffic.totals(users)
        view.traffic = f"users: {sent} requests, {failed} failed" if sent else "users: waiting for the first region"
        if not running:
            return
        time.sleep(_TICK_S)


def _failure(log: Path, code: int) -> FlightpathError:
    """The line that a stage printed, or where to look."""
    lines = log.read_text(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("flightpath: "):
            return _Reported(line.removeprefix("flightpath: "))
    return PermanentError("the release failed", got=f"exit code {code}", expected=f"0; see {log}")


class _Reported(PermanentError):
    """An error whose line another process has already made."""
