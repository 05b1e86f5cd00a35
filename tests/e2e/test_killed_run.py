"""Runs and the supervisor killed at any stage, and runs aborted: all end as the documents say."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flightpath.local.demo_policy import CLASSIFIERS
from flightpath.local.view import Progress, ProgressFile
from serving.credentials import TokenFolder
from serving.errors import NotFound, Unreachable
from serving.regions.places.client import AgentClient
from tests.e2e.conftest import PROJECT, FirstRelease, World
from tests.fakes.damage import write_json

pytestmark = pytest.mark.timeout(900)

_MODEL = "resnet-digits"
_POINTS = (
    ("training", "step 1"),
    ("evaluation", "held-out"),
    ("compression", "exported"),
    ("promotion", "us-east canary"),
    ("promotion", "eu-west canary"),
)
"""Stage and beginning of the announcement at which something is killed, in the order of a release."""
_POLICY = json.dumps(replace(CLASSIFIERS, required_gates=[], latency_margin=100.0, max_p95_ms=10_000.0).to_json())
"""The demo's, without latency: what dies is judged here, not how busy the machine is."""
_ROLLBACK_POINTS = ("started", "ordered", "starting", "switching", "done")


def _start(world: World, progress: Path, file: str, workflow: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", f"workflows/{file}.py", workflow]
    environment = {**world.environment, "FLIGHTPATH_PROGRESS_FILE": str(progress)}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _release(world: World, progress: Path, release: str, seed: int = 1) -> subprocess.Popen[bytes]:
    order = ["--recipe", _MODEL, "--release_id", release, "--seed", str(seed), "--policy", _POLICY]
    return _start(world, progress, "release", "release", *order)


def _wait_for(run: subprocess.Popen[bytes], progress: ProgressFile, stage: str, message: str) -> None:
    while not any(_is_there(news, stage, message) for news in progress.news()):
        assert run.poll() is None, f"the run ended before {stage}: {message}"
        time.sleep(0.05)


def _is_there(news: Progress, stage: str, message: str) -> bool:
    return news.stage == stage and news.message.startswith(message)


def _kill_run(run: subprocess.Popen[bytes]) -> None:
    os.kill(run.pid, signal.SIGKILL)
    run.wait()


def _replace_supervisor(world: World) -> None:
    """SIGKILL, and a new one; what the old one kept goes on as the same processes."""
    (supervisor,) = _supervisors(world)
    kept = {process.pid for process in world.processes() if _is_kept(process)}
    supervisor.kill()
    supervisor.wait(timeout=10)
    assert world.flightpath("up").returncode == 0
    assert kept <= {process.pid for process in world.processes()}


def _supervisors(world: World) -> list[psutil.Process]:
    return [process for process in world.processes() if "flightpath.local.supervisor" in _command(process)]


def _is_kept(process: psutil.Process) -> bool:
    return any(name in _command(process) for name in ("serving.regions.agent", "serving.gateway.app"))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _check_same_end(world: World, release: str, undisturbed: str) -> None:
    report, expected = world.read(release, "report"), world.read(undisturbed, "report")
    assert report["bundle_digest"] == expected["bundle_digest"]
    assert [(region["region"], region["state"]) for region in report["regions"]] == [
        (region["region"], region["state"]) for region in expected["regions"]
    ]
    assert set(world.served(_MODEL)) == {report["version"]}
    _check_nothing_left(world)


def _check_nothing_left(world: World) -> None:
    """No half bundle is to be seen, and no process that is neither a region's nor a model server."""
    assert not [path for path in world.root.glob("**/bundles/sha256/*") if not (path / "manifest.json").is_file()]
    known = ("flightpath.local.supervisor", "serving.regions.agent", "serving.gateway.app", "serving.engines.server")
    commands = [_command(process) for process in world.processes()]
    assert [command for command in commands if command and not any(name in command for name in known)] == []


def test_a_run_killed_at_five_points_ends_as_the_undisturbed_one(
    world: World, first_release: FirstRelease, tmp_path: Path
) -> None:
    for number, (stage, message) in enumerate(_POINTS):
        progress = tmp_path / f"{number}.jsonl"
        run = _release(world, progress, "killed-run")
        _wait_for(run, ProgressFile(progress), stage, message)
        _kill_run(run)
    assert _release(world, tmp_path / "last.jsonl", "killed-run").wait(timeout=300) == 0
    _check_same_end(world, "killed-run", first_release.release_id)


def test_a_supervisor_killed_at_five_points_of_a_release_is_replaced_and_disturbs_nothing(
    world: World, first_release: FirstRelease, tmp_path: Path
) -> None:
    run = _release(world, tmp_path / "progress.jsonl", "killed-supervisor")
    progress = ProgressFile(tmp_path / "progress.jsonl")
    for stage, message in _POINTS:
        _wait_for(run, progress, stage, message)
        _replace_supervisor(world)
    assert run.wait(timeout=300) == 0
    _check_same_end(world, "killed-supervisor", first_release.release_id)


@pytest.mark.parametrize("victim", ["run", "supervisor"])
def test_a_rollback_ends_the_same_whatever_is_killed_at_any_of_five_points(
    world: World, first_release: FirstRelease, second_release: str, tmp_path: Path, victim: str
) -> None:
    versions = [int(world.read(release, "report")["version"]) for release in (first_release.release_id, second_release)]
    for number, point in enumerate(_ROLLBACK_POINTS):
        target = next(version for version in versions if version not in world.served(_MODEL))
        id = f"back-{victim}-{number}"
        run = _roll_back(world, tmp_path / f"{id}.jsonl", id, target)
        _wait_until_rollback(world, id, point)
        if victim == "run":
            _kill_run(run)
            run = _roll_back(world, tmp_path / f"{id}-again.jsonl", id, target)
        else:
            _replace_supervisor(world)
        assert run.wait(timeout=120) == 0
        assert set(world.served(_MODEL)) == {target}
    _check_nothing_left(world)


def _roll_back(world: World, progress: Path, id: str, version: int) -> subprocess.Popen[bytes]:
    order = ["--model", _MODEL, "--to_version", str(version), "--rollback_id", id]
    return _start(world, progress, "rollback", "rollback", *order)


def _wait_until_rollback(world: World, id: str, point: str) -> None:
    """Until the first region is at this point of the rollback, or has passed it."""
    reached = _ROLLBACK_POINTS.index(point)
    deadline = time.monotonic() + 60
    while _rollback_point(world, id) < reached:
        assert time.monotonic() < deadline, f"the rollback did not reach {point}"
        time.sleep(0.01)


def _rollback_point(world: World, id: str) -> int:
    try:
        seen = _ask_home(world, lambda agent: agent.get_rollback(id))
    except (NotFound, Unreachable):
        return _ROLLBACK_POINTS.index("started")
    state = seen["regions"][0]["state"]
    return {"queued": 1, "starting": 2, "switching": 3}.get(state, 4)


def _ask_home(world: World, call: Callable[[AgentClient], Awaitable[Any]]) -> Any:
    token = TokenFolder(folder=world.root / "tokens").read("promoter")

    async def ask() -> Any:
        return await call(AgentClient(f"http://127.0.0.1:{world.port_base + 1}", token))

    return asyncio.run(ask())


def test_ctrl_c_after_training_rolls_the_canary_back(world: World, second_release: str, tmp_path: Path) -> None:
    run = _release(world, tmp_path / "progress.jsonl", "aborted-release", seed=2)
    _check_abort(world, run, tmp_path / "progress.jsonl", "aborted-release", signal.SIGINT)


def test_sigterm_rolls_the_canary_back(world: World, second_release: str, tmp_path: Path) -> None:
    plan = write_json(tmp_path / "plan.json", {**world.read(second_release, "plan"), "release_id": "ended-release"})
    order = ["--plan", str(plan), "--bundle", str(world.record(second_release, "bundle"))]
    run = _start(world, tmp_path / "progress.jsonl", "promotion", "promotion", *order)
    _check_abort(world, run, tmp_path / "progress.jsonl", "ended-release", signal.SIGTERM)


def _check_abort(
    world: World, run: subprocess.Popen[bytes], progress: Path, release: str, number: signal.Signals
) -> None:
    before = world.served(_MODEL)
    _wait_for(run, ProgressFile(progress), "promotion", "us-east canary")
    run.send_signal(number)
    assert run.wait(timeout=60) == 1
    deadline = time.monotonic() + 60
    while (state := _promotion_state(world, release)) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert state == "aborted"
    assert world.served(_MODEL) == before
    _check_nothing_left(world)


def _promotion_state(world: World, id: str) -> str:
    return str(_ask_home(world, lambda agent: agent.get_promotion(id))["state"])
