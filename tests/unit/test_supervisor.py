"""The supervisor's decisions: when to start again, when to give up, and that there is only one."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flightpath.local.state import StateRoot
from flightpath.local.supervisor import Child, ChildSpec, CrashHistory, locked
from serving.errors import Conflict
from serving.processes import stop


def test_the_first_start_is_at_once_and_later_ones_back_off() -> None:
    history = CrashHistory()
    assert history.next_start(100.0) == 100.0
    waits = []
    for death in (100.0, 101.0, 102.0, 103.0):
        history.note(death)
        due = history.next_start(death)
        assert due is not None
        waits.append(due - death)
    assert waits == [0.25, 0.5, 1.0, 2.0]


def test_a_crash_loop_ends_and_an_old_crash_is_forgotten() -> None:
    history = CrashHistory()
    for death in range(6):
        history.note(float(death))
    assert history.next_start(6.0) is None
    assert history.next_start(66.0) == 66.0


def test_a_second_supervisor_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"), pytest.raises(Conflict, match=f"got pid {os.getpid()}"), locked(tmp_path / "lock"):
        pass


def test_a_stale_lock_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("999999")
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_the_lock_of_a_killed_supervisor_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom flightpath.local.supervisor import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    signal.pause()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait()
    with locked(lock):
        assert lock.read_text() == str(os.getpid())


def _child(tmp_path: Path, code: str, script: str = "import signal; signal.pause()") -> Child:
    spec = ChildSpec(name="agent-x", command=[sys.executable, "-c", script], hands_over=False)
    return Child(spec=spec, root=StateRoot(tmp_path), code=code)


def test_a_running_child_of_the_same_code_is_adopted_and_of_other_code_replaced(tmp_path: Path) -> None:
    first = _child(tmp_path, "v1")
    first.begin()
    assert first.record is not None
    assert first.popen is not None
    adopted = _child(tmp_path, "v1")
    adopted.begin()
    assert adopted.record == first.record
    # The old supervisor is gone in real life, so its child is nobody's zombie; here it must be reaped.
    reaper = threading.Thread(target=first.popen.wait)
    reaper.start()
    replaced = _child(tmp_path, "v2")
    replaced.begin()
    reaper.join()
    assert replaced.record is not None
    assert replaced.popen is not None
    assert replaced.record.pid != first.record.pid
    assert not first.record.alive
    stop(replaced.record, grace_s=5)
    replaced.popen.wait()


def test_a_child_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    child = _child(tmp_path, "v1", script="raise SystemExit(3)")
    child.begin()
    now = 0.0
    while not child.gave_up:
        if child.popen is not None:
            child.popen.wait()
        child.tick(now)
        now += 5.0
        assert now < 1000
    assert child.record is None
