"""What an agent leans on, taken away for a while: a locked database, a silent or refusing server, a full disk."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tests.fakes.ports import HOST, free_port


@contextlib.asynccontextmanager
async def in_thread(outage: contextlib.AbstractContextManager[None]) -> AsyncIterator[None]:
    """An outage whose beginning and end take their time, beside users who go on."""
    await asyncio.to_thread(outage.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(outage.__exit__, None, None, None)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process in the midst of a transaction that it does not end."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
        other.execute("PRAGMA busy_timeout=30000")
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    """A server that takes connections and says nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Relay:
    """A port in front of another one, which can be closed without ending what is behind it. Use `async with`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._relay, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in [*self._writers]:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Connections are cut, and new ones are refused."""
        await self.__aexit__()
        try:
            yield
        finally:
            await self.__aenter__()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection(HOST, self._target)
        pair = {writer, onward}
        self._writers |= pair
        try:
            with contextlib.suppress(OSError):
                await asyncio.gather(_pump(reader, onward), _pump(there, writer))
        finally:
            self._writers -= pair
            for end in pair:
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(1 << 16):
        writer.write(block)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class CannotMount(Exception):
    """This user may not mount anything here."""


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own in an empty folder. Raises CannotMount."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError as missing:
        raise CannotMount(str(missing)) from missing
    if done.returncode != 0:
        raise CannotMount(done.stderr.strip())
    try:
        yield
    finally:
        # Lazily: a process that is ending may still have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], timeout=60, check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """No room on the folder's disk, nor what others give back meanwhile."""
    filler, over = folder / "filler", threading.Event()
    with filler.open("wb", buffering=0) as file:
        _fill(file.fileno())

        def keep_full() -> None:
            while not over.wait(0.05):
                _fill(file.fileno())

        keeping = threading.Thread(target=keep_full)
        keeping.start()
        try:
            yield
        finally:
            over.set()
            keeping.join()
            filler.unlink()


def _fill(descriptor: int) -> None:
    for size_bytes in (1 << 20, 4096, 1):
        with contextlib.suppress(OSError):
            while os.write(descriptor, bytes(size_bytes)):
                pass
