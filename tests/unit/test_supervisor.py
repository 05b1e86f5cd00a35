"""The supervisor's decisions: when to start again, whom to kill, and that there is only one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from flightpath.local.health import HealthCall
from flightpath.local.regions import _ensure_supervisor
from flightpath.local.state import StateRoot, running_code
from flightpath.local.supervisor import Child, ChildSpec, CrashHistory, _taken, locked
from serving.errors import Conflict
from serving.processes import spawn, stop
from tests.fakes.ports import free_port


def test_the_first_start_is_at_once_and_later_ones_back_off_to_a_minute_and_never_end() -> None:
    history = CrashHistory()
    assert history.may_start(100.0)
    now, waits, looping = 100.0, [], []
    for _ in range(1200):
        history.started(now)
        history.died(now)
        waits.append(history.backoff_s)
        looping.append(history.loops)
        assert not history.may_start(now + history.backoff_s - 0.01)
        now += history.backoff_s
        assert history.may_start(now)
    assert waits[:10] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(waits[8:]) == {60.0}
    assert looping[:10] == [False] * 8 + [True] * 2


def test_who_ran_for_long_has_a_clean_slate() -> None:
    history = CrashHistory()
    for death in range(8):
        history.started(float(death))
        history.died(float(death))
    history.started(100.0)
    history.died(159.0)
    assert history.backoff_s == 60.0
    history.started(300.0)
    history.died(361.0)
    assert (history.crashes, history.backoff_s) == (1, 0.25)


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


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def _child(
    tmp_path: Path,
    code: str,
    pool: Executor,
    script: str = "import signal; signal.pause()",
    *,
    url: str | None = None,
    hands_over: bool = False,
) -> Child:
    url = url or f"http://127.0.0.1:{free_port()}/healthz"
    command = [sys.executable, "-c", script]
    spec = ChildSpec(name="agent-x", command=command, health_url=url, hands_over=hands_over)
    return Child(spec=spec, root=StateRoot(tmp_path), code=code, call=HealthCall(url, pool))


def test_a_running_child_of_the_same_code_is_adopted_and_of_other_code_replaced(tmp_path: Path, pool: Executor) -> None:
    first = _child(tmp_path, "v1", pool)
    first.begin(0.0)
    assert first.record is not None
    assert first.popen is not None
    adopted = _child(tmp_path, "v1", pool)
    adopted.begin(0.0)
    assert adopted.record == first.record
    # The old supervisor is gone in real life, so its child is nobody's zombie; here it must be reaped.
    reaper = threading.Thread(target=first.popen.wait)
    reaper.start()
    replaced = _child(tmp_path, "v2", pool)
    replaced.begin(0.0)
    reaper.join()
    assert replaced.record is not None
    assert replaced.popen is not None
    assert replaced.record.pid != first.record.pid
    assert not first.record.alive
    stop(replaced.record, grace_s=5)
    replaced.popen.wait()


def ended(child: Child) -> None:
    """The process of the child is gone, whoever ended it."""
    assert child.popen is not None
    child.popen.wait()


def end(child: Child) -> None:
    if child.record is not None:
        stop(child.record, grace_s=0.0)
        ended(child)


def test_a_child_that_keeps_dying_is_tried_once_a_minute_and_that_is_told_once(
    tmp_path: Path, pool: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    child = _child(tmp_path, "v1", pool, script="raise SystemExit(3)")
    child.begin(0.0)
    starts, now = [0.0], 0.0
    with caplog.at_level("INFO"):
        while len(starts) < 13:
            if child.record is not None:
                ended(child)
            running = child.record
            child.tick(now)
            if child.record not in (running, None):
                starts.append(now)
            now += 0.25
            assert now < 1000
    assert [round(later - earlier) for earlier, later in pairwise(starts)][-4:] == [60] * 4
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "agent-x: ended 9 times in a row, tried every 60 s from now on; see its log"
    ]
    ended(child)


def test_a_child_that_waits_for_its_next_try_starts_when_somebody_asks(tmp_path: Path, pool: Executor) -> None:
    child = _child(tmp_path, "v1", pool, script="raise SystemExit(3)")
    child.begin(0.0)
    for _ in range(9):
        child.history.died(0.0)
    ended(child)
    child.tick(0.1)
    child.tick(0.2)
    assert child.record is None
    child.try_now()
    child.tick(0.3)
    assert child.record is not None
    ended(child)


def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path, pool: Executor) -> None:
    child = _child(tmp_path, "v1", pool)
    (tmp_path / "logs").write_text("a file, where the folder of logs would be")
    child.begin(0.0)
    child.tick(0.3)
    assert child.record is None
    (tmp_path / "logs").unlink()
    child.tick(1.0)
    assert child.record is not None
    end(child)


def tick_until(child: Child, holds: Callable[[], bool], *, step_s: float) -> float:
    """The child's time then. A killed process needs real time to die, however fast the child's own runs."""
    now, ends = 0.0, time.monotonic() + 60
    while not holds():
        child.tick(now)
        now += step_s
        time.sleep(0.005)
        assert time.monotonic() < ends
    return now


def test_a_stopped_child_is_killed_and_started_again(tmp_path: Path, pool: Executor) -> None:
    child = _child(tmp_path, "v1", pool)
    child.begin(0.0)
    first = child.record
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    os.waitpid(first.pid, os.WUNTRACED)
    tick_until(child, lambda: child.record not in (first, None), step_s=0.2)
    assert not first.alive
    assert child.history.crashes == 1
    end(child)


def test_a_stopped_child_that_goes_on_is_left_alone(tmp_path: Path, pool: Executor) -> None:
    child = _child(tmp_path, "v1", pool)
    child.begin(0.0)
    assert child.record is not None
    pid = child.record.pid
    now = 0.0
    for signum, change in ((signal.SIGSTOP, os.WUNTRACED), (signal.SIGCONT, os.WCONTINUED)) * 3:
        os.kill(pid, signum)
        os.waitpid(pid, change)
        for _ in range(20):
            child.tick(now)
            now += 0.2
    assert child.record.pid == pid
    assert child.record.alive
    end(child)


def test_a_child_that_never_answers_is_killed_and_started_again(tmp_path: Path, pool: Executor) -> None:
    child = _child(tmp_path, "v1", pool)
    child.begin(0.0)
    first = child.record
    assert first is not None
    now = tick_until(child, lambda: child.record != first, step_s=1.0)
    assert not first.alive
    # Longer than a busy one takes for its first answer.
    assert now > 120
    end(child)


def test_a_supervisor_that_runs_is_asked_to_try_again_at_once(tmp_path: Path) -> None:
    root = StateRoot(tmp_path)
    record, process = spawn(
        root.run,
        "supervisor",
        [sys.executable, "-c", "import signal; signal.pause()"],
        log=tmp_path / "log",
        detail={"code": running_code()},
    )
    assert not _ensure_supervisor(root, print)
    assert root.retry.exists()
    assert _taken(root.retry)
    assert not _taken(root.retry)
    stop(record, grace_s=0.0)
    process.wait()


def test_a_stopped_predecessor_is_not_waited_for(tmp_path: Path, pool: Executor) -> None:
    first = _child(tmp_path, "v1", pool, hands_over=True)
    first.begin(0.0)
    assert first.record is not None
    os.kill(first.record.pid, signal.SIGSTOP)
    os.waitpid(first.record.pid, os.WUNTRACED)
    successor = _child(tmp_path, "v2", pool, hands_over=True)
    successor.begin(0.0)
    ended(first)
    assert successor.retiring is None
    end(successor)
