"""Ports for the processes that tests start.

They lie below the range from which the kernel takes ports of outgoing connections: one of those would be taken by a
neighbour's connection between the look and the start. Test processes side by side have parts of their own.
"""

import os
import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"
_LOWEST: Final = 10_000
_COUNT: Final = 10_000
_given: set[int] = set()


def free_port() -> int:
    """One on which nothing listens, and that this process was not given before."""
    part = _COUNT // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = _LOWEST + part * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.SystemRandom().randrange(first, first + part)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
