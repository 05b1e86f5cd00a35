"""Sealed bundles of given files, and a file system that counts what is read of it and can be told to misbehave."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from serving.bundle import Attestation, BundleFile, Manifest, Variant, describe_file, seal
from serving.credentials import SigningKey

VARIANT = "any"


def make_manifest(*files: BundleFile) -> Manifest:
    variant = Variant(name=VARIANT, runtime="onnxruntime", entry=files[0].path, files=list(files))
    return Manifest(name="m", family="any", inputs=[], outputs=[], variants=[variant])


def make_bundle(root: Path, keys: Path, files: Mapping[str, bytes]) -> str:
    """A bundle at `root` that only a copier can use; returns its digest."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    manifest = make_manifest(*(describe_file(root, path) for path in files))
    attestation = Attestation(bundle_name="m", bundle_digest=manifest.digest, lineage={}, measurements=[])
    return seal(root, manifest, attestation, SigningKey.ensure(keys))


class CountedFiles(MemoryFileSystem):
    """`counted://`: a store in memory that tells which bytes were asked for."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[str, int, int]]] = []
    """Name of the file, first byte, byte after the last."""
    zeros: ClassVar[dict[str, int]] = {}
    """Names of files that are not stored but made on the spot, and their sizes."""
    stops: ClassVar[tuple[threading.Event, int] | None] = None
    """An event that is set once so many bytes have been asked for."""
    ignores_ranges: ClassVar[bool] = False

    @classmethod
    def forget(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.asked.clear()
        cls.zeros.clear()
        cls.stops, cls.ignores_ranges = None, False

    @classmethod
    def bytes_of(cls, name: str) -> int:
        return sum(end - start for asked, start, end in cls.asked if asked == name)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        size = self.zeros.get(path.rpartition("/")[2])
        return super().info(path, **kwargs) if size is None else {"name": path, "size": size, "type": "file"}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        name = path.rpartition("/")[2]
        assert start is not None
        assert end is not None
        self.asked.append((name, start, end))
        if self.stops is not None and sum(last - first for _, first, last in self.asked) >= self.stops[1]:
            self.stops[0].set()
        if name in self.zeros:
            return bytes(end - start)
        if self.ignores_ranges:
            return bytes(super().cat_file(path))
        return bytes(super().cat_file(path, start, end))


fsspec.register_implementation("counted", CountedFiles, clobber=True)
