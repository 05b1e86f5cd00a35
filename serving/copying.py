"""Copies of bundles: bounded in bandwidth and memory, hashed as they are read, stopped at the next block.

A file is fetched by blocks into a staging folder. One that a killed copy left there is read again, which costs the
disk and not the network, and goes on where it ends; what it holds counts only once its SHA-256 is the manifest's. So
one bundle may come from several sources, file by file, and whatever has its name is whole, verified and durable.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from serving.bundle import (
    ATTESTATION,
    MANIFEST,
    MAX_METADATA_BYTES,
    BundleFile,
    Manifest,
    check_digest,
    parse_manifest,
    unlisted,
    verify_attestation,
    verify_file,
)
from serving.credentials import trusted_keys
from serving.errors import (
    Conflict,
    CorruptBundle,
    FlightpathError,
    InvalidInput,
    NotFound,
    PermanentError,
    RetryableError,
    UntrustedBundle,
)
from serving.files import make_folders, sync_folder, sync_folders, write_atomically
from serving.store_files import StoreFiles, free_bytes, own_errors

_LOOK_AGAIN_S: Final = 0.1
"""How soon one that waits looks whether it was told to stop."""
_TRIES: Final = 2
"""Of one file from one source: the first may have gone on from what had rotted here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyLimits:
    """What one copy may take from the machine that serves beside it."""

    parallel_files: int = 4
    """Files side by side: enough to hide an object store's wait before each block."""
    block_bytes: int = 8 * 1024 * 1024
    """Bytes read at once; a copy holds about two of them for each file under way, four where the store is distant."""
    bytes_per_s: float = 1e9
    """Bytes per second of all files together: leaves a fifth of a 10 Gbit/s network to the traffic."""


class Pace:
    """What the threads of one copy or audit share: its bandwidth, and the order to stop."""

    def __init__(self, bytes_per_s: float, cancelled: threading.Event | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._cancelled = cancelled or threading.Event()
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def fail(self) -> None:
        """Stop the others: one thread's failure is the copy's."""
        self._failed.set()

    def check(self) -> None:
        """Raises RetryableError once the copy is to stop: ordered again, it goes on where it was."""
        if self._cancelled.is_set() or self._failed.is_set():
            raise RetryableError("copy was stopped", expected="to be ordered again")

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read; raises as `check` does."""
        with self._lock:
            start = max(time.monotonic(), self._free_at)
            self._free_at = start + size_bytes / self._bytes_per_s
        while (left := start - time.monotonic()) > 0:
            self.check()
            self.pause(min(left, _LOOK_AGAIN_S))
        self.check()

    def pause(self, seconds: float) -> None:
        self._cancelled.wait(seconds)


def run_together(jobs: Sequence[Callable[[], None]], limits: CopyLimits, pace: Pace) -> None:
    """Run jobs side by side; the first failure stops the rest and is raised."""
    with ThreadPoolExecutor(max_workers=limits.parallel_files, thread_name_prefix="copy") as pool:
        running = [pool.submit(job) for job in jobs]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        failures = [failure for job in done if (failure := job.exception()) is not None]
        if failures:
            pace.fail()
            raise failures[0]


# One file


def fetch_file(source: StoreFiles, file: BundleFile, target: Path, limits: CopyLimits, pace: Pace) -> None:
    """Bring one file here, going on where an earlier call ended; on return it is verified and durable.

    Raises what `StoreFiles` does, and CorruptBundle if the source has another file of this name.
    """
    with own_errors(str(target), room=target.parent):
        make_folders(target.parent)
        with target.open("r+b" if target.exists() else "x+b") as out:
            digest = hashlib.sha256()
            had = 0
            while had < file.size_bytes and (block := out.read(min(limits.block_bytes, file.size_bytes - had))):
                pace.take(len(block))
                digest.update(block)
                had += len(block)
            out.truncate(had)
            if had < file.size_bytes or not file.size_bytes:
                _check_size(source, file)
                for block in source.blocks(file.path, start=had, end=file.size_bytes, block_bytes=limits.block_bytes):
                    pace.take(len(block))
                    digest.update(block)
                    out.write(block)
            out.flush()
            os.fsync(out.fileno())
    if digest.hexdigest() != file.sha256:
        # The next try starts anew: what lay here may have rotted, or what came may have been garbled.
        target.unlink()
        raise CorruptBundle(f"{file.path} has a wrong SHA-256", got=digest.hexdigest(), expected=file.sha256)


def _check_size(source: StoreFiles, file: BundleFile) -> None:
    try:
        found = source.size(file.path)
    except NotFound as missing:
        raise CorruptBundle("bundle lacks a file", got=source.uri, expected=file.path) from missing
    if found != file.size_bytes:
        raise CorruptBundle(f"{file.path} has a wrong size", got=found, expected=f"{file.size_bytes} bytes")


def put_file(root: Path, file: BundleFile, target: StoreFiles, limits: CopyLimits, pace: Pace) -> None:
    """Put one file of a bundle into a store, whole and with the manifest's SHA-256, or not at all."""
    blocks = _checked(StoreFiles.of_folder(root), file, limits, pace)
    target.put(file.path, blocks, size_bytes=file.size_bytes, block_bytes=limits.block_bytes)


def _checked(source: StoreFiles, file: BundleFile, limits: CopyLimits, pace: Pace) -> Iterator[bytes]:
    """The blocks of a whole file; CorruptBundle after the last if they are not the manifest's."""
    _check_size(source, file)
    digest = hashlib.sha256()
    for block in source.blocks(file.path, start=0, end=file.size_bytes, block_bytes=limits.block_bytes):
        pace.take(len(block))
        digest.update(block)
        yield block
    if digest.hexdigest() != file.sha256:
        raise CorruptBundle(f"{file.path} has a wrong SHA-256", got=digest.hexdigest(), expected=file.sha256)


def find_rotten(source: StoreFiles, manifest: Manifest, limits: CopyLimits, pace: Pace) -> list[str]:
    """Files of a bundle that a store has not as the manifest says, read there; raises what `StoreFiles` does."""
    rotten = []
    for file in manifest.files().values():
        try:
            for _ in _checked(source, file, limits, pace):
                pass
        except CorruptBundle:
            rotten.append(file.path)
    return rotten


# One bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A file that a source should have had."""

    place: str
    path: str
    why: FlightpathError

    @property
    def rotten(self) -> bool:
        """It is there and does not hold, rather than absent or out of reach."""
        return isinstance(self.why, CorruptBundle)


@dataclass(frozen=True, kw_only=True, slots=True)
class Brought:
    manifest: Manifest
    new: bool
    """Whether the folder was not there before."""
    mended: list[str] = field(default_factory=list)
    """Paths that were missing, rotten or not listed in a folder that was there already."""
    faults: list[Fault] = field(default_factory=list)
    """What the sources lacked or had rotten, where another source had it whole."""

    @property
    def changed(self) -> bool:
        return self.new or bool(self.mended)


Accept = Callable[[Manifest, bytes | None], None]
"""Judges a manifest and its attestation (None: it has none) before anything large is copied; raises to refuse."""


def accept_any(manifest: Manifest, attestation: bytes | None) -> None:
    """The digest alone is trusted."""


def accept_signed(key_folder: Path) -> Accept:
    """A key in `key_folder` must have signed; UntrustedBundle otherwise."""

    def accept(manifest: Manifest, attestation: bytes | None) -> None:
        if attestation is None:
            raise UntrustedBundle("bundle has no attestation", got=manifest.digest, expected=ATTESTATION)
        verify_attestation(attestation, digest=manifest.digest, keys=trusted_keys(key_folder))

    return accept


def bring_bundle(
    digest: str,
    target: Path,
    *,
    sources: Sequence[StoreFiles],
    staging: Path,
    limits: CopyLimits,
    pace: Pace,
    accept: Accept = accept_any,
) -> Brought:
    """Make `target` the whole bundle: fetched anew, or mended file by file where it is there and does not hold.

    `sources` are folders of the bundle, the preferred one first; each file comes from the first that has it whole.
    `staging` is on the target's disk; a copy that was stopped or lost its sources goes on from there. Nothing that
    holds is replaced or removed, and what is refused changes nothing in the target.

    Raises:
        UntrustedBundle: or what else `accept` raises.
        CorruptBundle: every source that has the bundle has it rotten.
        NotFound: no source has it.
        RetryableError: a source cannot be reached, the disk is full, or the copy was stopped.
    """
    with alone(staging, pace):
        try:
            return _bring(digest, target, sources, staging / "bundle", limits, pace, accept)
        except PermanentError:
            shutil.rmtree(staging / "bundle", ignore_errors=True)
            raise


def _bring(
    digest: str,
    target: Path,
    sources: Sequence[StoreFiles],
    staged: Path,
    limits: CopyLimits,
    pace: Pace,
    accept: Accept,
) -> Brought:
    there = target.is_dir() and not target.is_symlink()
    # What lies in the target is kept as long as it may be.
    heads = [StoreFiles.of_folder(target), *sources] if there and os.path.lexists(target / MANIFEST) else sources
    faults: list[Fault] = []
    manifest, attestation = _first_accepted(heads, digest, accept, faults, pace)
    absent = {fault.place for fault in faults if isinstance(fault.why, NotFound | RetryableError)}
    sources = [source for source in sources if source.uri not in absent]
    wanted = [file for file in manifest.files().values() if not (there and _holds(target, file, pace))]
    _check_room(staged, wanted)
    fetching = _Fetching(sources, staged, limits, pace, faults)
    run_together([partial(fetching.fetch, file) for file in wanted], limits, pace)
    with own_errors(str(target), room=target.parent):
        if there:
            mended = _mend(target, staged, manifest, wanted, attestation)
        else:
            mended = []
            _write_head(staged, manifest, attestation)
            sync_folders(staged)
            remove(target)
            make_folders(target.parent)
            staged.rename(target)
            sync_folder(target.parent)
    return Brought(manifest=manifest, new=not there, mended=mended, faults=[fault for fault in faults if fault.rotten])


class _Fetching:
    """Each file from the first source that has it whole."""

    def __init__(
        self, sources: Sequence[StoreFiles], staged: Path, limits: CopyLimits, pace: Pace, faults: list[Fault]
    ) -> None:
        self._sources = sources
        self._staged = staged
        self._limits = limits
        self._pace = pace
        self._faults = faults
        self._away: dict[int, FlightpathError] = {}

    def fetch(self, file: BundleFile) -> None:
        failures: list[FlightpathError] = []
        for number, source in enumerate(self._sources):
            failure = self._fetch_from(number, source, file)
            if failure is None:
                return
            failures.append(failure)
            self._faults.append(Fault(place=source.uri, path=file.path, why=failure))
        raise _telling(failures)

    def _fetch_from(self, number: int, source: StoreFiles, file: BundleFile) -> FlightpathError | None:
        """None once the file is here."""
        failure: FlightpathError | None = None
        for _ in range(_TRIES):
            # No other file waits for it: a source that hangs would cost its time-outs once a file.
            if number in self._away:
                return self._away[number]
            self._pace.check()
            try:
                fetch_file(source, file, self._staged / file.path, self._limits, self._pace)
            except CorruptBundle as bad:
                failure = bad
            except FlightpathError as failed:
                self._away[number] = failed
            else:
                return None
        return self._away.get(number, failure)


def _first_accepted(
    sources: Sequence[StoreFiles], digest: str, accept: Accept, faults: list[Fault], pace: Pace
) -> tuple[Manifest, bytes | None]:
    """Manifest and attestation of the first source whose are accepted; what is wrong with those before is noted."""
    for source in sources:
        pace.check()
        try:
            manifest, attestation = read_head(source, digest)
            accept(manifest, attestation)
        except InvalidInput:
            raise
        except FlightpathError as failed:
            faults.append(Fault(place=source.uri, path=MANIFEST, why=failed))
        else:
            return manifest, attestation
    raise _telling([fault.why for fault in faults])


def _telling(failures: Sequence[FlightpathError]) -> FlightpathError:
    """The failure of several that says what to do: distrust, then what may pass, then rot, then absence."""
    ranks = (UntrustedBundle, RetryableError, CorruptBundle, FlightpathError)
    return min(failures, key=lambda failure: next(n for n, kind in enumerate(ranks) if isinstance(failure, kind)))


def read_head(source: StoreFiles, digest: str) -> tuple[Manifest, bytes | None]:
    """Manifest and attestation of a bundle; NotFound where there is none, CorruptBundle if it is another."""
    try:
        content = source.read(MANIFEST, limit_bytes=MAX_METADATA_BYTES)
    except NotFound as missing:
        raise NotFound("store has no such bundle", got=source.uri, expected=f"a folder with {MANIFEST}") from missing
    manifest = parse_manifest(content)
    check_digest(manifest, digest)
    try:
        return manifest, source.read(ATTESTATION, limit_bytes=MAX_METADATA_BYTES)
    except NotFound:
        return manifest, None


def _holds(root: Path, file: BundleFile, pace: Pace) -> bool:
    try:
        verify_file(root, file, on_block=pace.take)
    except CorruptBundle:
        return False
    return True


def _check_room(staged: Path, wanted: Sequence[BundleFile]) -> None:
    present = sum(path.lstat().st_size for path in staged.rglob("*") if path.is_file()) if staged.exists() else 0
    needed, free = sum(file.size_bytes for file in wanted) - present, free_bytes(staged)
    if needed > free:
        raise RetryableError("no room for the bundle", got=f"{free} bytes free at {staged}", expected=f"{needed} bytes")


def _write_head(folder: Path, manifest: Manifest, attestation: bytes | None) -> list[str]:
    """Names of what had to be written. The manifest is last: it makes the bundle visible."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((ATTESTATION, attestation), (MANIFEST, manifest.to_bytes())):
        path = folder / name
        if content is None or _holds_exactly(path, content):
            continue
        clear_way(folder, name)
        write_atomically(path, content)
        written.append(name)
    return written


def _holds_exactly(path: Path, content: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    found = path.lstat()
    own = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    return own and found.st_size == len(content) and path.read_bytes() == content


def _mend(
    target: Path, staged: Path, manifest: Manifest, wanted: Sequence[BundleFile], attestation: bytes | None
) -> list[str]:
    for file in wanted:
        clear_way(target, file.path)
        os.replace(staged / file.path, target / file.path)
    excess = unlisted(target, manifest)
    for path in excess:
        remove(target / path)
    head = _write_head(target, manifest, attestation)
    sync_folders(target)
    shutil.rmtree(staged, ignore_errors=True)
    return [*(file.path for file in wanted), *excess, *head]


def clear_way(root: Path, relative: str) -> None:
    """Make the folders that lead to a file, real ones, and remove what is no file in its place."""
    folder = root
    for part in PurePosixPath(relative).parts[:-1]:
        folder = folder / part
        if folder.is_symlink() or not folder.is_dir():
            remove(folder)
            folder.mkdir()
    if (root / relative).is_dir():
        remove(root / relative)


def remove(path: Path) -> None:
    """A file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def alone(staging: Path, pace: Pace, *, wait_for_it: bool = True) -> Iterator[None]:
    """The only one in a staging folder, of all processes on this machine; Conflict if it is taken and not waited for.

    The folder is gone afterwards unless a copy is to go on from it.
    """
    with own_errors(str(staging), room=staging.parent):
        descriptor = _take_lock(staging, pace, wait_for_it=wait_for_it)
    try:
        yield
    finally:
        if not (staging / "bundle").exists():
            (staging / ".lock").unlink(missing_ok=True)
            with suppress(OSError):
                staging.rmdir()
        os.close(descriptor)


def _take_lock(staging: Path, pace: Pace, *, wait_for_it: bool) -> int:
    lock = staging / ".lock"
    while True:
        pace.check()
        make_folders(staging)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # The one before has just removed the folder.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as taken:
            if not wait_for_it:
                os.close(descriptor)
                raise Conflict("bundle is being copied", got=str(staging), expected="nobody at it") from taken
            pace.pause(_LOOK_AGAIN_S)
        os.close(descriptor)
