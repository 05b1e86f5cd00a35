"""Checkpoints that are written while training goes on: the first worker's, one at a time."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.store_files import StoreFiles
from tasks.training.branches import Branches
from tasks.training.checkpointing import Snapshot, checkpoint_name, write_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What every checkpoint of an attempt has in common."""

    run: StoreFiles
    scratch: Path
    attempt: int
    fingerprint: str
    seed: int
    keep: int
    """Newest checkpoints that stay."""


class CheckpointWriter:
    """Use `close` at the end, whatever the end is: what is under way becomes whole."""

    def __init__(self, kept: Kept, *, committed_step: int) -> None:
        self._kept = kept
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None
        self.committed_step = committed_step
        """Newest step whose checkpoint is whole; that of the one resumed from before there is one."""

    def begin(self, snapshot: Snapshot, ranks: Sequence[dict[str, Any]], step: int) -> None:
        """Write it beside training; waits for the one before. Raises what that one failed with."""
        self.finish()
        self._under_way = self._thread.submit(self._write, snapshot, ranks, step)

    def finish(self) -> None:
        """Wait until nothing is under way. Raises what it failed with."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _write(self, snapshot: Snapshot, ranks: Sequence[dict[str, Any]], step: int) -> None:
        kept = self._kept
        name = checkpoint_name(step, kept.attempt)
        write_checkpoint(kept.run, name, snapshot, ranks, step=step, fingerprint=kept.fingerprint, seed=kept.seed)
        self.committed_step = step
        Branches(kept.run, kept.scratch).remove_old(keep=kept.keep, newest=(step, kept.attempt))
