"""Being asked to stop: a pod that is taken away gets SIGTERM, and saves before it goes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    asked: bool = False


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

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
