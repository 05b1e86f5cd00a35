"""A new gateway takes the listening socket of the old one over, so that no connection is refused.

The old process listens on `{region folder}/gateway.sock`. A new one connects and gets the listening
socket itself (SCM_RIGHTS): both accept from one queue until the new one says that it serves, and only
then the old one stops accepting and drains. From the moment the socket is handed out until then the
old one changes no routes, for the new one is about to read them. If the new one dies half-way,
the old one simply goes on.
"""

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import Conflict
from serving.web_server import bind_listener

SOCKET_FILE: Final = "gateway.sock"
_SCHEMA_VERSION: Final = 1
_CONFIRMATION: Final = b"serving"
_MAX_MESSAGE_BYTES: Final = 1024
_CONNECT_TIMEOUT_S: Final = 5.0
_CONFIRM_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """A listening socket, and the predecessor that waits to hear that we serve, if there is one."""

    listener: socket.socket
    predecessor: socket.socket | None = None
    from_pid: int | None = None

    async def confirm(self) -> None:
        """Tell the predecessor to stop accepting. It may have died meanwhile: then nothing is left to tell."""
        if self.predecessor is not None:
            with self.predecessor, contextlib.suppress(OSError):
                self.predecessor.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(self.predecessor, _CONFIRMATION)


async def inherit_or_bind(folder: Path, address: tuple[str, int]) -> Inherited:
    """The predecessor's socket if one listens at `address`, else a new one; Conflict if the port is taken."""
    return await asyncio.to_thread(_inherit_or_bind, folder, address)


def _inherit_or_bind(folder: Path, address: tuple[str, int]) -> Inherited:
    predecessor = _connect(folder)
    if predecessor is None:
        return Inherited(_bind(address))
    inherited = _receive(predecessor)
    if inherited.listener.getsockname()[:2] == address:
        return inherited
    # The region moved to another port: serve there, and still let the predecessor drain.
    inherited.listener.close()
    return Inherited(_bind(address), inherited.predecessor, inherited.from_pid)


def _connect(folder: Path) -> socket.socket | None:
    """A connection to a living predecessor, or None."""
    if not (folder / SOCKET_FILE).exists():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_TIMEOUT_S)
    try:
        with _short_path(folder, SOCKET_FILE) as path:
            connection.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    except OSError as failed:
        connection.close()
        raise _not_handed_over(failed) from failed
    return connection


def _receive(predecessor: socket.socket) -> Inherited:
    try:
        _check_owner(predecessor)
        message, descriptors, _, _ = socket.recv_fds(predecessor, _MAX_MESSAGE_BYTES, 1)
        said = json.loads(message)
        if len(descriptors) != 1 or said["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(said)
        listener = socket.socket(fileno=descriptors[0])
        listener.setblocking(False)
        return Inherited(listener, predecessor, int(said["pid"]))
    except (OSError, ValueError, KeyError, TypeError) as broken:
        predecessor.close()
        raise _not_handed_over(broken) from broken


def _not_handed_over(cause: Exception) -> Conflict:
    return Conflict("running gateway did not hand its socket over", got=repr(cause), expected="its listening socket")


def _check_owner(peer: socket.socket) -> None:
    """Only processes of the same user exchange sockets."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if user != os.getuid():
        raise PermissionError(f"peer runs as user {user}")


def _bind(address: tuple[str, int]) -> socket.socket:
    try:
        return bind_listener(*address)
    except OSError as failed:
        if failed.errno != errno.EADDRINUSE:
            raise Conflict(
                "address cannot be bound", got=f"{address}: {failed}", expected="a local address"
            ) from failed
        raise Conflict(
            f"port {address[1]} is taken", got=_holder(address[1]), expected="a free port or a gateway of this region"
        ) from failed


def _holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    # Imported here: only this error needs to look at processes.
    import psutil

    from serving.processes import listener

    try:
        process = listener(port)
        return "a process that is not visible" if process is None else f"{process.name()} (pid {process.pid})"
    except (psutil.Error, OSError):
        return "a process that is not visible"


@contextlib.contextmanager
def _short_path(folder: Path, name: str) -> Iterator[str]:
    """A path to `folder/name` below the 107 characters that a socket address holds."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


class HandoverServer:
    """Hands the listening socket to a successor. `succeeded` is set once it serves. Use `async with`."""

    def __init__(self, folder: Path, listener: socket.socket, *, freeze: Callable[[bool], None]) -> None:
        self._folder = folder
        self._listener = listener
        self._freeze = freeze
        self._accepting: asyncio.Task[None] | None = None
        self.succeeded = asyncio.Event()

    async def __aenter__(self) -> "HandoverServer":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._socket, self._inode = self._listen()
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._socket.close()
        path = self._folder / SOCKET_FILE
        # The path is the successor's once it has put its own socket there.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == self._inode:
                path.unlink()

    def _listen(self) -> tuple[socket.socket, int]:
        """Bind beside the final path and rename, so that the path always leads to a living process."""
        temporary = self._folder / f"{SOCKET_FILE}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_path(self._folder, temporary.name) as path:
            server.bind(path)
        temporary.chmod(0o600)
        server.listen(4)
        server.setblocking(False)
        inode = temporary.stat().st_ino
        os.replace(temporary, self._folder / SOCKET_FILE)
        return server, inode

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.succeeded.is_set():
            successor, _ = await loop.sock_accept(self._socket)
            self._freeze(True)
            try:
                with successor:
                    await self._hand_over(successor)
            except (OSError, TimeoutError):
                continue
            finally:
                self._freeze(self.succeeded.is_set())

    async def _hand_over(self, successor: socket.socket) -> None:
        _check_owner(successor)
        message = json.dumps({"schema_version": _SCHEMA_VERSION, "pid": os.getpid()}).encode()
        socket.send_fds(successor, [message], [self._listener.fileno()])
        successor.setblocking(False)
        async with asyncio.timeout(_CONFIRM_TIMEOUT_S):
            said = await asyncio.get_running_loop().sock_recv(successor, len(_CONFIRMATION))
        if said == _CONFIRMATION:
            self.succeeded.set()
