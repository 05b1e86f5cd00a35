"""Being asked to stop: a pod that is taken away gets SIGTERM, and saves before it goes."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

_GRACE_S: Final = 10.0
"""To come to the end of a step. torchrun kills after 30 s, and a group that restarts waits for its slowest worker."""
_EXIT: Final = 128 + signal.SIGTERM


class StopRequest:
    """Ask `asked` between steps, and call `heed` once it is answered."""

    def __init__(self) -> None:
        self.asked = False
        self._heeded = threading.Event()

    def heed(self) -> None:
        """The process has seen the request, and takes what time it needs."""
        self._heeded.set()

    def must_be_heeded(self) -> None:
        """End the process if it does not see the request: one that waits for a dead peer never comes to the end of its
        step, and would hold up those who wait for it."""
        if not self._heeded.wait(_GRACE_S):
            os._exit(_EXIT)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """While the block runs, SIGTERM asks to stop; a second one ends the process.

    Outside of the main thread (under Ray, which ends its workers itself) nobody is asked.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    # The handler runs once the main thread is back in Python. Who waits in a collective is told by the pipe.
    heard, told = socket.socketpair()
    told.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(heard, request), name="stop-request", daemon=True)
    before, wakeup = signal.signal(signal.SIGTERM, ask), signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        request.heed()
        told.close()
        watcher.join()
        heard.close()


def _watch(heard: socket.socket, request: StopRequest) -> None:
    with suppress(OSError):
        while signals := heard.recv(64):
            if signal.SIGTERM in signals:
                request.asked = True
                request.must_be_heeded()
