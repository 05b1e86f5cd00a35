"""Records of processes: adopted when they are the same process, never signalled when they are not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from serving.processes import ProcessRecord, forget, listener, read_records, spawn, stop, wait_until_gone

_SLEEPER = [
    sys.executable,
    "-c",
    "import sys; print('up', flush=True); sys.stdin = None; import signal; signal.pause()",
]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[ProcessRecord, subprocess.Popen[bytes]]]:
    record, child = spawn(tmp_path / "run", "sleeper", _SLEEPER, log=tmp_path / "log", detail={"port": 1})
    yield record, child
    child.kill()
    child.wait()


def test_a_record_lets_the_next_owner_find_the_process(
    running: tuple[ProcessRecord, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    record, _ = running
    assert read_records(tmp_path / "run") == [record]
    assert record.alive
    assert record.detail == {"port": 1}


def test_a_stopped_process_is_gone_and_forgotten(
    running: tuple[ProcessRecord, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    record, child = running
    stop(record, grace_s=10)
    child.wait()
    assert not record.alive
    forget(tmp_path / "run", "sleeper")
    assert read_records(tmp_path / "run") == []


def test_a_reused_pid_is_not_signalled(running: tuple[ProcessRecord, subprocess.Popen[bytes]]) -> None:
    record, child = running
    assert record.born is not None
    boot, _, ticks = record.born.partition(":")
    for stranger in (
        replace(record, born=f"{boot}:{int(ticks) + 100}"),
        replace(record, born=f"another-boot:{ticks}"),
        replace(record, born=None, started_at=record.started_at + 100),
    ):
        assert not stranger.alive
        stop(stranger, grace_s=0.1)
    assert child.poll() is None


def test_a_process_whose_record_cannot_be_written_does_not_live_on(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file, where the folder of records would be")
    with pytest.raises(OSError, match="run"):
        spawn(tmp_path / "run", "sleeper", ["sleep", "61.5"], log=tmp_path / "log")
    assert ["sleep", "61.5"] not in [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]


def test_a_wall_clock_that_was_set_makes_no_process_another_one(
    running: tuple[ProcessRecord, subprocess.Popen[bytes]],
) -> None:
    record, child = running
    # What a kernel whose clock was set by an hour reports of a process is an hour off what the record says.
    before_the_jump = replace(record, started_at=record.started_at + 3600)
    assert before_the_jump.alive
    stop(before_the_jump, grace_s=10)
    assert child.wait() == -signal.SIGTERM


def test_a_record_of_older_code_still_names_its_process(
    running: tuple[ProcessRecord, subprocess.Popen[bytes]],
) -> None:
    record, child = running
    older = replace(record, born=None)
    assert older.alive
    stop(older, grace_s=10)
    assert child.wait() == -signal.SIGTERM


def test_a_process_that_is_held_is_told_from_one_that_runs(
    running: tuple[ProcessRecord, subprocess.Popen[bytes]],
) -> None:
    record, child = running
    assert not record.stopped
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert record.stopped
    child.send_signal(signal.SIGCONT)
    os.waitpid(child.pid, os.WCONTINUED)
    assert not record.stopped
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    stop(record, grace_s=3600.0)
    assert child.wait() == -signal.SIGKILL


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )
    log = tmp_path / "log"
    record, child = spawn(tmp_path / "run", "stubborn", [sys.executable, "-c", script], log=log)
    while not log.read_text().endswith("\n"):
        assert child.poll() is None
    grandchild = psutil.Process(int(log.read_text()))
    stop(record, grace_s=0.2)
    child.wait()
    grandchild.wait(timeout=10)
    assert wait_until_gone(record, timeout_s=1)


def test_a_torn_record_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"name": "x", "pi')
    assert read_records(tmp_path) == []


def test_a_large_log_is_moved_aside_before_a_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (11 * 1024 * 1024))
    _, child = spawn(tmp_path / "run", "quick", [sys.executable, "-c", "print('new')"], log=log)
    child.wait()
    assert log.read_text() == "new\n"
    assert (tmp_path / "log.1").stat().st_size == 11 * 1024 * 1024


def test_the_listener_of_a_port_is_found(busy_port: int) -> None:
    process = listener(busy_port)
    assert process is not None
    assert process.pid == psutil.Process().pid
