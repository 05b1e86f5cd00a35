"""The files of one folder on any fsspec file system, as stores and copies need them.

Every call is bounded in time, a file is read in blocks of bounded size and never past the bytes asked for, and what a
client of a cloud or the disk says when it fails becomes an error of ours. What is no regular file is never read: a
pipe or a device would hang or never end, and a link leads out of the store.
"""

import errno
import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from serving.errors import (
    CorruptBundle,
    FlightpathError,
    InvalidInput,
    NotFound,
    RetryableError,
    TimedOut,
    Unauthorized,
)
from serving.files import make_folders, sync_folder, write_atomically

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_AHEAD: Final = 2
"""Blocks of a distant file that are asked for before they are needed."""
_MOST_PARTS: Final = 9_000
"""S3 takes 10,000 parts of one object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreLimits:
    """How long a store may let one call wait."""

    connect_timeout_s: float = 5.0
    """Seconds to a connection: the clouds answer within one, and a region next door has the bundle too."""
    read_timeout_s: float = 20.0
    """Seconds without a byte: longer than S3's slowest first bytes."""
    attempts: int = 2
    """Tries of one request inside the client; whoever ordered the copy orders it again."""
    call_timeout_s: float = 60.0
    """Seconds of one call with all its tries; a block of 8 MiB needs no more at 0.14 MB/s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFiles:
    """Files by path relative to a folder.

    Raises NotFound, Unauthorized (the store refuses us), CorruptBundle (no regular file, or shorter than it said),
    TimedOut, or RetryableError (out of reach, broken, a full disk).
    """

    uri: str
    local: bool
    _system: AbstractFileSystem = field(repr=False, compare=False)
    _root: str = field(repr=False, compare=False)
    _limits: StoreLimits = field(repr=False, compare=False)

    @classmethod
    def open(cls, uri: str, limits: StoreLimits | None = None) -> "StoreFiles":
        """No connection yet; raises InvalidInput for what is no fsspec URI."""
        limits = limits or StoreLimits()
        try:
            protocol = fsspec.core.split_protocol(uri)[0] or "file"
            # As `Path.as_uri` writes it, a space is %20, which fsspec would take for the name of another folder.
            quoted = uri.startswith(("file:///", "local:///"))
            place = unquote(uri.partition("://")[2]) if quoted else uri
            system, root = fsspec.core.url_to_fs(place, **_options(protocol, limits))
        except (ValueError, ImportError) as unusable:
            raise InvalidInput("store cannot be opened", got=uri, expected="an fsspec URI") from unusable
        if protocol in ("s3", "s3a"):
            system.retries = limits.attempts
        protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
        return cls(
            uri=uri.rstrip("/"), local="file" in protocols, _system=system, _root=root.rstrip("/"), _limits=limits
        )

    @classmethod
    def of_folder(cls, folder: Path) -> "StoreFiles":
        system, limits = LocalFileSystem(), StoreLimits()
        return cls(uri=str(folder), local=True, _system=system, _root=str(folder), _limits=limits)

    def within(self, relative: str) -> "StoreFiles":
        return replace(self, uri=self.address(relative), _root=f"{self._root}/{relative}")

    def address(self, relative: str) -> str:
        return f"{self.uri}/{relative}"

    @property
    def folder(self) -> Path:
        """Where the files lie; of a local store alone."""
        return Path(self._root)

    # Reading

    def has(self, relative: str) -> bool:
        try:
            with self._errors(relative):
                self._system.info(f"{self._root}/{relative}", **self._bounded())
        except NotFound:
            return False
        return True

    def size(self, relative: str) -> int:
        if self.local:
            with self._errors(relative), self._regular(relative) as (_, size_bytes):
                return size_bytes
        with self._errors(relative):
            info = self._system.info(f"{self._root}/{relative}", **self._bounded())
        if info["type"] != "file":
            raise _irregular(self.address(relative))
        return int(info["size"])

    def read(self, relative: str, *, limit_bytes: int | None = None) -> bytes:
        """A small file; CorruptBundle if it is larger than the limit."""
        size_bytes = self.size(relative)
        if limit_bytes is not None and size_bytes > limit_bytes:
            raise CorruptBundle(f"{relative} is too large", got=size_bytes, expected=f"<= {limit_bytes} bytes")
        return b"".join(self.blocks(relative, start=0, end=size_bytes, block_bytes=max(size_bytes, 1)))

    def blocks(self, relative: str, *, start: int, end: int, block_bytes: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, which the file must have."""
        with self._errors(relative):
            if self.local:
                with self._regular(relative) as (descriptor, _):
                    for at, count in _spans(start, end, block_bytes):
                        yield _whole(os.pread(descriptor, count, at), count, self.address(relative))
                return
            yield from self._distant_blocks(relative, list(_spans(start, end, block_bytes)))

    def _distant_blocks(self, relative: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """The next blocks are on their way while one is looked at: each costs a round trip before its first byte."""
        path = f"{self._root}/{relative}"

        def fetch(at: int, count: int) -> bytes:
            return bytes(self._system.cat_file(path, start=at, end=at + count, **self._bounded()))

        ahead = ThreadPoolExecutor(max_workers=_AHEAD, thread_name_prefix="block")
        try:
            coming = deque(ahead.submit(fetch, *span) for span in spans[:_AHEAD])
            for number, (_, count) in enumerate(spans):
                block = coming.popleft().result()
                if number + _AHEAD < len(spans):
                    coming.append(ahead.submit(fetch, *spans[number + _AHEAD]))
                yield _whole(block, count, self.address(relative))
        finally:
            # Whoever stops early waits for none of them.
            ahead.shutdown(wait=False, cancel_futures=True)

    def list(self) -> list[str]:
        """Every file below the folder, links and the like included."""
        with self._errors(""):
            if self.local:
                walked = os.walk(self._root)
                found = [os.path.join(place, name) for place, _, names in walked for name in names]
            else:
                found = self._system.find(self._root, **self._bounded())
        return sorted(path.removeprefix(self._root).lstrip("/") for path in found)

    # Writing

    def write(self, relative: str, content: bytes) -> None:
        """Put a small file, whole or not at all."""
        with self._errors(relative):
            if self.local:
                make_folders((self.folder / relative).parent)
                write_atomically(self.folder / relative, content)
                return
            self._system.pipe_file(f"{self._root}/{relative}", content, **self._bounded())

    def put(self, relative: str, blocks: Iterable[bytes], *, size_bytes: int, block_bytes: int) -> None:
        """Put a file as its blocks come, whole or not at all; durable on return where the store is local."""
        if self.local:
            with self._errors(relative):
                self._put_locally(self.folder / relative, blocks)
            return
        parts_bytes = max(block_bytes, -(-size_bytes // _MOST_PARTS))
        with self._errors(relative):
            file = self._system.open(f"{self._root}/{relative}", "wb", block_size=parts_bytes)
            try:
                for block in blocks:
                    file.write(block)
                file.close()
            except BaseException:
                # Closing would publish the half; so would the garbage collector, unless it is closed.
                with suppress(Exception):
                    file.discard()
                with suppress(AttributeError):
                    file.closed = True
                raise

    def _put_locally(self, target: Path, blocks: Iterable[bytes]) -> None:
        make_folders(target.parent)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)

    def remove(self, relative: str) -> None:
        """Delete a file; one that is not there is fine."""
        with suppress(NotFound), self._errors(relative):
            if self.local:
                (self.folder / relative).unlink()
            else:
                self._system.rm_file(f"{self._root}/{relative}", **self._bounded())

    def remove_folder(self, relative: str) -> None:
        """Delete every file below a folder; one that is not there is fine."""
        with suppress(NotFound), self._errors(relative):
            if self.local:
                shutil.rmtree(self.folder / relative)
            else:
                self._system.rm(f"{self._root}/{relative}", recursive=True, **self._bounded())

    # How

    @contextmanager
    def _regular(self, relative: str) -> Iterator[tuple[int, int]]:
        """Descriptor and size of a regular file."""
        path = f"{self._root}/{relative}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as failed:
            if failed.errno in (errno.ELOOP, errno.ENXIO):
                raise _irregular(self.address(relative)) from failed
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise _irregular(self.address(relative))
            yield descriptor, found.st_size
        finally:
            os.close(descriptor)

    def _bounded(self) -> dict[str, Any]:
        return {"timeout": self._limits.call_timeout_s} if isinstance(self._system, AsyncFileSystem) else {}

    @contextmanager
    def _errors(self, relative: str) -> Iterator[None]:
        # The clouds' clients have trees of errors of their own; of a local disk there is only this one.
        with own_errors(self.address(relative), foreign=OSError if self.local else Exception, room=self._room()):
            yield

    def _room(self) -> Path | None:
        return self.folder if self.local else None


@contextmanager
def own_errors(place: str, *, foreign: type[Exception] = OSError, room: Path | None = None) -> Iterator[None]:
    """What a store or a disk raises, as an error of ours that names the place. `room` is a folder on the disk."""
    try:
        yield
    except FlightpathError:
        raise
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise NotFound("store has no such file", got=place, expected="one that was put there") from missing
    except PermissionError as refused:
        got = f"{place}: {refused}"
        raise Unauthorized("store refuses us", got=got, expected="credentials that may use it") from refused
    except TimeoutError as late:
        raise TimedOut("store does not answer", got=place, expected="an answer in time") from late
    except foreign as failed:
        if isinstance(failed, OSError) and failed.errno in _FULL:
            got = place if room is None else f"{free_bytes(room)} bytes free at {place}"
            raise RetryableError("disk is full", got=got, expected="room for the whole bundle") from failed
        got = f"{place}: {failed or type(failed).__name__}"
        raise RetryableError("store failed", got=got, expected="a store that answers") from failed


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that may not be there yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


def _options(protocol: str, limits: StoreLimits) -> dict[str, Any]:
    """A listing that is remembered would hide what another process wrote."""
    if protocol in ("s3", "s3a"):
        bounds = {
            "connect_timeout": limits.connect_timeout_s,
            "read_timeout": limits.read_timeout_s,
            "retries": {"total_max_attempts": limits.attempts, "mode": "standard"},
        }
        set_outside = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
        return {"use_listings_cache": False, "config_kwargs": {**bounds, **set_outside}}
    if protocol in ("gs", "gcs"):
        return {"use_listings_cache": False, "requests_timeout": limits.call_timeout_s}
    if protocol in ("az", "abfs", "abfss"):
        waits = {"connection_timeout": int(limits.connect_timeout_s), "read_timeout": int(limits.read_timeout_s)}
        return {"use_listings_cache": False, **waits}
    return {}


def _spans(start: int, end: int, block_bytes: int) -> Iterator[tuple[int, int]]:
    return ((at, min(block_bytes, end - at)) for at in range(start, end, block_bytes))


def _whole(block: bytes, count: int, address: str) -> bytes:
    if len(block) != count:
        raise CorruptBundle(
            "file is not as long as its store says", got=f"{len(block)} bytes of {address}", expected=count
        )
    return block


def _irregular(address: str) -> CorruptBundle:
    return CorruptBundle("store holds no regular file there", got=address, expected="no folder, link, pipe or device")
