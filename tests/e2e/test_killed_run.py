"""A run killed at any stage and started again ends as the undisturbed one did."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flightpath.local.view import Progress, ProgressFile
from tests.e2e.conftest import PROJECT, FirstRelease, World

pytestmark = pytest.mark.timeout(900)

_RELEASE = "killed-run"
_POINTS = (
    ("training", "step 1"),
    ("compression", "exported"),
    ("promotion", "us-east canary"),
    ("promotion", "eu-west canary"),
)
"""Stage and beginning of the announcement at which the run is killed, in the order of a release."""


def _start(world: World, progress: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", "workflows/release.py", "release"]
    command += ["--recipe", "resnet-digits", "--release_id", _RELEASE, "--seed", "1"]
    environment = {**world.environment, "FLIGHTPATH_PROGRESS_FILE": str(progress)}
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill_at(world: World, progress: Path, stage: str, message: str) -> None:
    """Start the run and SIGKILL it, alone, as soon as it announces the point."""
    run = _start(world, progress)
    file = ProgressFile(progress)
    while not any(_is_there(news, stage, message) for news in file.news()):
        assert run.poll() is None, f"the run ended before {stage}: {message}"
        try:
            run.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    os.kill(run.pid, signal.SIGKILL)
    run.wait()


def _is_there(news: Progress, stage: str, message: str) -> bool:
    return news.stage == stage and news.message.startswith(message)


def test_a_run_killed_at_four_points_ends_as_the_undisturbed_one(
    world: World, first_release: FirstRelease, tmp_path: Path
) -> None:
    for number, (stage, message) in enumerate(_POINTS):
        _kill_at(world, tmp_path / f"{number}.jsonl", stage, message)
    last = _start(world, tmp_path / "last.jsonl")
    assert last.wait(timeout=300) == 0
    report, undisturbed = world.read(_RELEASE, "report"), world.read(first_release.release_id, "report")
    assert report["bundle_digest"] == undisturbed["bundle_digest"]
    assert [(region["region"], region["state"]) for region in report["regions"]] == [
        (region["region"], region["state"]) for region in undisturbed["regions"]
    ]
    assert set(world.served("resnet-digits")) == {report["version"]}
    assert not [path for path in world.root.glob("**/bundles/sha256/*") if not (path / "manifest.json").is_file()]
    assert _strays(world) == []


def _strays(world: World) -> list[str]:
    """Processes of this state root that are neither regions nor their model servers."""
    known = ("flightpath.local.supervisor", "serving.regions.agent", "serving.gateway.app", "serving.engines.server")
    found = []
    for process in world.processes():
        try:
            command = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if not any(name in command for name in known):
            found.append(command)
    return found


def test_a_killed_supervisor_is_replaced_and_nothing_it_kept_is_disturbed(
    world: World, first_release: FirstRelease
) -> None:
    (supervisor,) = (p for p in world.processes() if "flightpath.local.supervisor" in " ".join(p.cmdline()))
    kept = {process.pid for process in world.processes()} - {supervisor.pid}
    supervisor.kill()
    supervisor.wait(timeout=10)
    assert world.flightpath("up").returncode == 0
    assert kept <= {process.pid for process in world.processes()}
