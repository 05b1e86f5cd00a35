"""The launcher: real processes that become ready, crash, are restarted, adopted and ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from serving.processes import forget, read_records, stop
from serving.regions.deciding.rollout_state import Server
from serving.regions.servers.launcher import LaunchSettings, LocalLauncher
from serving.regions.servers.server_process import MARK, ServerSpec, minimal_environment
from serving.releases import RuntimeSpec

READY = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
PARENT = (
    """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
"""
    + READY
)
BROKEN = "print('starting', flush=True); raise SystemExit('weights are missing')"
TAKEN = "raise SystemExit('OSError: [Errno 98] Address already in use')"
RUNTIMES = {
    name: [sys.executable, "-c", script, "{port}"]
    for name, script in (("ready", READY), ("parent", PARENT), ("broken", BROKEN), ("taken", TAKEN))
}
SETTINGS = LaunchSettings(poll_s=0.02, first_backoff_s=0.01, max_backoff_s=0.02, crash_limit=3, stop_grace_s=5.0)


def make_spec(tmp_path: Path, engine: str, name: str = "rel-1") -> ServerSpec:
    runtime = RuntimeSpec(engine=engine, variant="v")
    return ServerSpec(name=name, model="m", version=1, bundle=tmp_path / "bundle", runtime=runtime)


@contextlib.asynccontextmanager
async def launching(tmp_path: Path, restarts: list[str] | None = None) -> AsyncIterator[LocalLauncher]:
    def note(name: str, why: str) -> None:
        if restarts is not None:
            restarts.append(why)

    launcher = LocalLauncher(
        tmp_path / "here" / "servers", tmp_path / "logs", runtimes=RUNTIMES, settings=SETTINGS, on_restart=note
    )
    await launcher.adopt()
    watching = asyncio.create_task(launcher.supervise())
    try:
        yield launcher
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


@pytest.fixture(autouse=True)
def _end_servers(tmp_path: Path) -> object:
    yield
    for record in read_records(tmp_path / "here" / "servers"):
        stop(record, grace_s=0.0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_server_becomes_ready_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        assert launcher.status("rel-1").state is Server.ABSENT
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (record,) = read_records(tmp_path / "here" / "servers")
        assert launcher.status("rel-1").url == f"http://127.0.0.1:{record.detail['port']}"
        await launcher.stop("rel-1")
        await launcher.stop("rel-1")
        assert launcher.status("rel-1").state is Server.ABSENT
        assert not record.alive
        assert read_records(tmp_path / "here" / "servers") == []


async def test_a_server_that_dies_at_start_gives_the_last_line_of_its_log_as_reason(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "broken"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)
        assert launcher.status("rel-1").note == "exited with 1: weights are missing"


async def test_a_lost_port_is_no_crash_until_it_happens_again_and_again(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "taken"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)
    lines = (tmp_path / "logs" / "server-here-rel-1.log").read_text().count("already in use")
    assert lines == SETTINGS.port_attempts


async def test_a_server_that_should_run_is_started_again_and_reported_degraded_in_a_crash_loop(tmp_path: Path) -> None:
    restarts: list[str] = []
    async with launching(tmp_path, restarts) as launcher:
        await launcher.ensure(make_spec(tmp_path, "broken"), restart=True)
        await until(lambda: launcher.status("rel-1").degraded)
        assert launcher.status("rel-1").restarts >= 2
        assert launcher.status("rel-1").state is Server.STARTING
    assert restarts[0] == "exited with 1: weights are missing"


async def test_a_server_that_ended_before_it_was_to_be_kept_running_counts_as_restarted(tmp_path: Path) -> None:
    restarts: list[str] = []
    async with launching(tmp_path, restarts) as launcher:
        await launcher.ensure(make_spec(tmp_path, "broken"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)
        await launcher.ensure(make_spec(tmp_path, "broken"), restart=True)
        await until(lambda: launcher.status("rel-1").restarts >= 1)
    assert restarts[0] == "exited with 1: weights are missing"


async def test_the_next_launcher_adopts_what_the_last_one_left_running(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
    (record,) = read_records(tmp_path / "here" / "servers")
    assert record.alive
    async with launching(tmp_path) as successor:
        # Ready at once: no route may be planned without it.
        assert successor.status("rel-1").state is Server.READY
        await successor.ensure(make_spec(tmp_path, "ready"), restart=True)
        assert [r.pid for r in read_records(tmp_path / "here" / "servers")] == [record.pid]
        await successor.stop("rel-1")
    assert not record.alive


async def test_an_engine_that_nobody_defined_fails_by_name(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "abacus"), restart=False)
        assert launcher.status("rel-1").state is Server.FAILED
        assert "unknown engine, got abacus" in launcher.status("rel-1").note


def test_a_model_server_gets_no_token_and_none_of_the_agents_settings() -> None:
    source = {"PATH": "/bin", "FLIGHTPATH_HOME": "/x", "AWS_SECRET_ACCESS_KEY": "s", "VLLM_API_KEY": "k", "LANG": "C"}
    environment = minimal_environment({"OMP_NUM_THREADS": "1"}, source)
    assert environment == {"PATH": "/bin", "LANG": "C", "OMP_NUM_THREADS": "1"}


def marked(tmp_path: Path) -> list[psutil.Process]:
    """Living processes with the mark of this test's servers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mark = process.environ().get(MARK, "")
            if mark.startswith(f"{tmp_path / 'here' / 'servers'}#") and process.status() != "zombie":
                found.append(process)
    return found


async def test_what_a_killed_server_started_ends_when_its_death_is_noticed(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "parent"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (record,) = read_records(tmp_path / "here" / "servers")
        assert len(marked(tmp_path)) == 3
        os.kill(record.pid, signal.SIGKILL)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)
        await until(lambda: marked(tmp_path) == [])
        assert launcher.status("rel-1").note == "ended by signal 9"


async def test_what_a_killed_server_started_ends_when_the_next_launcher_begins(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "parent"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
    (record,) = read_records(tmp_path / "here" / "servers")
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)
    async with launching(tmp_path) as successor:
        assert successor.names() == []
        await until(lambda: marked(tmp_path) == [])
    assert read_records(tmp_path / "here" / "servers") == []


async def test_a_server_whose_record_was_never_written_is_ended_by_the_next_launcher(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await launcher.ensure(make_spec(tmp_path, "ready", "rel-2"), restart=False)
        await until(lambda: launcher.status("rel-2").state is Server.READY)
    first, second = read_records(tmp_path / "here" / "servers")
    forget(tmp_path / "here" / "servers", first.name)
    async with launching(tmp_path) as successor:
        assert successor.names() == ["rel-2"]
        await until(lambda: [process.pid for process in marked(tmp_path)] == [second.pid])


async def test_a_server_started_again_while_it_is_being_stopped_keeps_its_record(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (before,) = read_records(tmp_path / "here" / "servers")
        await asyncio.gather(launcher.stop("rel-1"), launcher.ensure(make_spec(tmp_path, "ready"), restart=False))
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (after,) = read_records(tmp_path / "here" / "servers")
        assert after.pid != before.pid
        assert after.alive
        assert not before.alive
