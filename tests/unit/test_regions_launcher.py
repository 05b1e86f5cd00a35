"""The launcher: real processes that become ready, crash, are restarted, adopted and ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from serving.bundle import Manifest, TensorSpec
from serving.liveness import LivenessLimits
from serving.processes import ProcessRecord, forget, read_records, stop
from serving.regions.deciding.rollout_state import Server
from serving.regions.servers.launcher import LaunchSettings, LocalLauncher
from serving.regions.servers.server_process import MARK, ServerSpec, minimal_environment
from serving.regions.servers.watch import WatchSettings
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
ENGINE = """
import http.server, os, subprocess, sys
if len(sys.argv) == 3:
    # What computes is a child, as vLLM's engine is; it answers each line with another.
    for line in sys.stdin:
        print(line, end="", flush=True)
    sys.exit()
code = open("/proc/self/cmdline", "rb").read().split(bytes(1))[2].decode()
engine = subprocess.Popen(
    [sys.executable, "-c", code, sys.argv[1], "engine"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/v2/health/ready":
            engine.stdin.write(b"x" + bytes([10]))
            engine.stdin.flush()
            engine.stdout.readline()
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.path = "/work"
        self.do_GET()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY
DEAF = """
import http.server, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    answered = 0
    def do_GET(self):
        Handler.answered += 1
        if Handler.answered > 1:
            threading.Event().wait()
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
BROKEN = "print('starting', flush=True); raise SystemExit('weights are missing')"
TAKEN = "raise SystemExit('OSError: [Errno 98] Address already in use')"
RUNTIMES = {
    name: [sys.executable, "-c", script, "{port}"]
    for name, script in (
        ("ready", READY),
        ("parent", PARENT),
        ("stubborn", STUBBORN),
        ("engine", ENGINE),
        ("deaf", DEAF),
        ("broken", BROKEN),
        ("taken", TAKEN),
    )
}
SETTINGS = LaunchSettings(
    poll_s=0.02,
    first_backoff_s=0.01,
    max_backoff_s=0.02,
    crash_limit=3,
    stop_grace_s=5.0,
    watch=WatchSettings(group_every_s=0.1, liveness=LivenessLimits(stopped_silent_s=0.5, stopped_dead_s=1.0)),
)
PATIENT = replace(SETTINGS, watch=WatchSettings(group_every_s=0.1, liveness=LivenessLimits(stopped_dead_s=3600.0)))
"""A stopped server leaves the route and is left alone."""
HASTY = replace(
    SETTINGS, watch=WatchSettings(group_every_s=0.1, liveness=LivenessLimits(hung_silent_s=1.0, hung_dead_s=2.0))
)
"""Seconds without an answer are enough."""


def make_spec(tmp_path: Path, engine: str, name: str = "rel-1") -> ServerSpec:
    runtime = RuntimeSpec(engine=engine, variant="v")
    return ServerSpec(name=name, model="m", version=1, bundle=tmp_path / "bundle", runtime=runtime)


@contextlib.asynccontextmanager
async def launching(
    tmp_path: Path, restarts: list[str] | None = None, settings: LaunchSettings = SETTINGS
) -> AsyncIterator[LocalLauncher]:
    def note(name: str, why: str) -> None:
        if restarts is not None:
            restarts.append(why)

    launcher = LocalLauncher(
        tmp_path / "here" / "servers", tmp_path / "logs", runtimes=RUNTIMES, settings=settings, on_restart=note
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


async def test_whoever_gives_up_waiting_for_an_end_leaves_the_successor_its_record(tmp_path: Path) -> None:
    async with launching(tmp_path, settings=replace(SETTINGS, stop_grace_s=1.0)) as launcher:
        spec = make_spec(tmp_path, "stubborn")
        await launcher.ensure(spec, restart=True)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (before,) = read_records(tmp_path / "here" / "servers")
        ending = asyncio.create_task(launcher.stop("rel-1"))
        await asyncio.sleep(0.1)
        ending.cancel()
        await launcher.ensure(spec, restart=True)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (after,) = read_records(tmp_path / "here" / "servers")
        assert (after.pid != before.pid, after.alive, before.alive) == (True, True, False)


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


def write_manifest(tmp_path: Path) -> None:
    """With it a server is asked for an inference."""
    inputs = [TensorSpec(name="x", datatype="FP32", shape=[-1, 4])]
    manifest = Manifest(name="m", family="f", inputs=inputs, outputs=[], variants=[])
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_bytes(manifest.to_bytes())


def find_process(record: ProcessRecord, which: str) -> psutil.Process:
    """The server itself, or the child that computes for it."""
    server = psutil.Process(record.pid)
    return server if which == "server" else server.children()[0]


def has_ended(process: psutil.Process) -> bool:
    """Orphans may wait for ever for an init that reaps them."""
    return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)


@contextlib.asynccontextmanager
async def ready_server(
    tmp_path: Path, owner: str, settings: LaunchSettings, restarts: list[str] | None = None
) -> AsyncIterator[tuple[LocalLauncher, ProcessRecord]]:
    """A launcher's own server, or one that an earlier launcher left to it."""
    write_manifest(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        launcher = await stack.enter_async_context(launching(tmp_path, restarts, settings))
        await launcher.ensure(make_spec(tmp_path, "engine"), restart=True)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        if owner == "successor":
            await stack.aclose()
            launcher = await stack.enter_async_context(launching(tmp_path, restarts, settings))
            await launcher.ensure(make_spec(tmp_path, "engine"), restart=True)
        (record,) = read_records(tmp_path / "here" / "servers")
        yield launcher, record


OWNERS = pytest.mark.parametrize("owner", ["starter", "successor"])
WHICH = pytest.mark.parametrize("which", ["server", "engine"])


@OWNERS
@WHICH
async def test_a_stopped_server_is_out_of_the_route_until_it_goes_on(tmp_path: Path, owner: str, which: str) -> None:
    async with ready_server(tmp_path, owner, PATIENT) as (launcher, record):
        process = find_process(record, which)
        process.suspend()
        await until(lambda: launcher.status("rel-1").url is None)
        status = launcher.status("rel-1")
        assert (status.state, status.note[:11], status.restarts) == (Server.STARTING, "stopped for", 0)
        process.resume()
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        assert launcher.status("rel-1").note == ""
        assert [r.pid for r in read_records(tmp_path / "here" / "servers")] == [record.pid]


@OWNERS
@WHICH
async def test_a_server_that_stays_stopped_is_killed_whole_and_started_again(
    tmp_path: Path, owner: str, which: str
) -> None:
    restarts: list[str] = []
    async with ready_server(tmp_path, owner, SETTINGS, restarts) as (launcher, record):
        family = [find_process(record, "server"), find_process(record, "engine")]
        find_process(record, which).suspend()
        await until(lambda: launcher.status("rel-1").restarts == 1)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (after,) = read_records(tmp_path / "here" / "servers")
        assert after.pid != record.pid
        assert all(map(has_ended, family))
    assert [why[:19] for why in restarts] == ["killed: stopped for"]


async def test_a_stopped_server_that_is_not_to_be_kept_running_has_failed(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        await until(lambda: launcher.status("rel-1").state is Server.READY)
        (record,) = read_records(tmp_path / "here" / "servers")
        os.kill(record.pid, signal.SIGSTOP)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)
        assert launcher.status("rel-1").note.startswith("killed: stopped for")
        assert not record.alive


async def test_a_server_that_is_stopped_before_it_is_ready_is_killed_too(tmp_path: Path) -> None:
    async with launching(tmp_path) as launcher:
        await launcher.ensure(make_spec(tmp_path, "ready"), restart=False)
        (record,) = read_records(tmp_path / "here" / "servers")
        os.kill(record.pid, signal.SIGSTOP)
        await until(lambda: launcher.status("rel-1").state is Server.FAILED)


async def test_a_server_that_was_ready_and_hangs_is_replaced(tmp_path: Path) -> None:
    restarts: list[str] = []
    async with launching(tmp_path, restarts, HASTY) as launcher:
        await launcher.ensure(make_spec(tmp_path, "deaf"), restart=True)
        await until(lambda: launcher.status("rel-1").restarts == 1)
    assert restarts[0].startswith("killed: no sign of life for")


async def test_a_stopped_server_ends_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    never = replace(PATIENT, stop_grace_s=3600.0)
    async with ready_server(tmp_path, "starter", never) as (launcher, record):
        os.kill(record.pid, signal.SIGSTOP)
        await until(lambda: launcher.status("rel-1").url is None)
        await launcher.stop("rel-1")
        assert not record.alive


async def test_what_fails_while_a_restart_is_noted_stops_no_watch(tmp_path: Path) -> None:
    def away(name: str, why: str) -> None:
        raise OSError("the registry is away")

    launcher = LocalLauncher(
        tmp_path / "here" / "servers", tmp_path / "logs", runtimes=RUNTIMES, settings=SETTINGS, on_restart=away
    )
    watching = asyncio.create_task(launcher.supervise())
    await launcher.ensure(make_spec(tmp_path, "broken"), restart=True)
    try:
        await until(lambda: watching.done() or launcher.status("rel-1").restarts >= 3)
        assert not watching.done()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
