"""Places on fsspec that backups come from and go to: streamed with their SHA-256, never held in memory.

An object appears whole: object stores publish at the end of an upload, and local files are renamed into place.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.spec import AbstractFileSystem

from serving.bundle import check_relative_path
from serving.errors import FlightpathError, InvalidInput, RetryableError
from serving.files import sync_folder, write_atomically

_CHUNK_BYTES: Final = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One file of a place, as a listing tells it."""

    path: str
    size_bytes: int
    fingerprint: str
    """Changes when the file does: an object store's ETag, a local file's inode and time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A folder at an fsspec URI."""

    uri: str
    kms_key: str | None = None
    """Key id or ARN that S3 encrypts with; elsewhere the bucket's own default is what encrypts."""

    def __post_init__(self) -> None:
        if self.kms_key is not None and not self.uri.startswith("s3://"):
            raise InvalidInput("a KMS key is for s3:// alone", got=self.uri, expected="an encrypted bucket or disk")

    def list(self, under: str = "") -> list[Found]:
        """Every file below `under`, by path."""
        with self._opened() as (system, root):
            start = f"{root}/{under}".rstrip("/")
            found = system.find(start, detail=True) if system.exists(start) else {}
            return sorted((_found(path, info, root) for path, info in found.items()), key=lambda file: file.path)

    def read(self, path: str) -> bytes:
        """A small file; FileNotFoundError where there is none."""
        with self._opened() as (system, root):
            content: bytes = system.cat_file(f"{root}/{path}")
            return content

    def fetch(self, path: str, target: Path) -> tuple[str, int]:
        """Copy a file here; returns its SHA-256 and size as they were read. FileNotFoundError where there is none."""
        digest, size = hashlib.sha256(), 0
        with self._opened() as (system, root), system.open(f"{root}/{path}", "rb") as source, target.open("wb") as out:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += out.write(chunk)
        return digest.hexdigest(), size

    def put(self, source: Path, path: str) -> None:
        """Place a file, whole or not at all."""
        check_relative_path(path)
        with self._opened() as (system, root):
            if not _is_local(system):
                system.put_file(str(source), f"{root}/{path}")
                return
            _place_locally(source, Path(root) / path)

    def write(self, content: bytes, path: str) -> None:
        check_relative_path(path)
        with self._opened() as (system, root):
            if not _is_local(system):
                system.pipe_file(f"{root}/{path}", content)
                return
            write_atomically(Path(root) / path, content)

    def remove(self, path: str) -> None:
        with self._opened() as (system, root):
            system.rm_file(f"{root}/{path}")

    @contextmanager
    def _opened(self) -> Iterator[tuple[AbstractFileSystem, str]]:
        """The file system; what it says when it cannot be reached becomes ours."""
        try:
            system, root = fsspec.core.url_to_fs(self.uri, **self._options())
        except (ValueError, ImportError) as unusable:
            raise InvalidInput("place cannot be opened", got=self.uri, expected="an fsspec URI") from unusable
        try:
            yield system, root.rstrip("/")
        except (FileNotFoundError, FlightpathError):
            raise
        except Exception as failed:
            # The clouds' clients have trees of errors of their own; of a local disk there is only this one.
            if _is_local(system) and not isinstance(failed, OSError):
                raise
            raise RetryableError(f"{self.uri} failed", got=str(failed), expected="a store that answers") from failed

    def _options(self) -> dict[str, Any]:
        if not self.uri.startswith("s3://"):
            return {}
        # A listing that is remembered would hide what another process wrote.
        options: dict[str, Any] = {"use_listings_cache": False}
        if self.kms_key is not None:
            options["s3_additional_kwargs"] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key}
        return options


def _found(path: str, info: dict[str, Any], root: str) -> Found:
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or f"{info.get('ino')}-{info.get('mtime')}"
    return Found(path=path.removeprefix(root).lstrip("/"), size_bytes=int(info["size"]), fingerprint=str(tag))


def _is_local(system: AbstractFileSystem) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))


def _place_locally(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with source.open("rb") as file, temporary.open("wb") as out:
            shutil.copyfileobj(file, out, _CHUNK_BYTES)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
