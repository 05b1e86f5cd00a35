"""SIGTERM is answered between steps, and a process that never gets there does not outlast its grace."""

import signal
import subprocess
import sys
import threading
import time

from tasks.training.stopping import stop_request

_STUCK = """
import os, signal, threading
from tasks.training import stopping
stopping._GRACE_S = 0.5
with stopping.stop_request():
    os.kill(os.getpid(), signal.SIGTERM)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""


def test_the_first_signal_asks_and_the_block_goes_on() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_request() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        stop.heed()
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_signal_is_nobodys_business() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with stop_request() as stop:
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.05)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_who_waits_for_a_dead_peer_ends_with_the_signals_code() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _STUCK], check=False, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began > 0.5


def test_outside_of_the_main_thread_nothing_is_changed() -> None:
    seen: list[object] = []

    def work() -> None:
        with stop_request() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]
