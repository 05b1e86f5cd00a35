"""Which checkpoint a run goes on from.

Each attempt leaves `attempt-<n>.json`: what it was told (`resume`) and the checkpoint that it began with. So a run that
was sent back to step 20 is a branch: what an attempt before it made of the steps after 20 is not its past, and is never
taken for it, whoever restarts it and however often.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.errors import NotFound, PermanentError
from serving.files import canonical_json
from serving.store_files import StoreFiles
from tasks.data.addresses import fetch_folder
from tasks.training.checkpointing import FOLDER, MANIFEST, SavedCheckpoint, checkpoint_name, verify_checkpoint

AUTO: Final = "auto"
NEVER: Final = "never"
_RECORD: Final = re.compile(r"attempt-(\d+)\.json")
_MAX_RECORD_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a run holds."""

    newest: SavedCheckpoint | None
    """To go on from; where it lies is `folder`, a copy if the run is at a distance."""
    skipped: list[str] = field(default_factory=list)
    """`<folder name>: <why it is no checkpoint>`, newest first; only those newer than `newest`."""
    attempts: int = 0
    """Highest attempt seen, torn ones included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    resume: str
    began_with: tuple[int, int] | None
    """Step and attempt."""


class Branches:
    """The attempts and checkpoints of one run, as they were when it was made.

    Args:
        scratch: where checkpoints of a distant run are copied to.
    """

    def __init__(self, run: StoreFiles, scratch: Path) -> None:
        self._run = run
        self._scratch = scratch
        names = run.list()
        folders = {name.partition("/")[0] for name in names if "/" in name}
        self._folders = {(int(match[1]), int(match[2])) for name in folders if (match := FOLDER.fullmatch(name))}
        self._recorded = {int(match[1]) for name in names if (match := _RECORD.fullmatch(name))}
        self._read: dict[int, _Attempt | None] = {}
        self.attempts = max([*self._recorded, *(attempt for _, attempt in self._folders)], default=0)

    def find(self, resume: str = AUTO, *, total_steps: int | None = None) -> Found:
        """The checkpoint that the order means.

        `auto` is the newest of the newest branch. `never` and a step's number count where the order is new; where the
        newest attempt had the same order and has not finished (`total_steps`), this is its restart and goes on.

        Raises:
            NotFound: there is no whole checkpoint of the step that was asked for.
        """
        if resume == AUTO:
            return self._newest()
        told = self._attempt(self.attempts)
        if told is not None and told.resume == resume:
            found = self._first_whole(self._branch(self.attempts))
            if found.newest is None or found.newest.step != total_steps:
                return found
        if resume == NEVER:
            return Found(newest=None, attempts=self.attempts)
        step = int(resume)
        of_step = [place for place in self._every() if place[0] == step]
        found = self._first_whole(iter(of_step))
        if found.newest is None:
            raise NotFound(
                f"no whole checkpoint in {self._run.uri}", got=found.skipped or "none", expected=f"one of step {step}"
            )
        return found

    def begin(self, resume: str, began_with: SavedCheckpoint | None) -> int:
        """Record a new attempt; returns its number."""
        number = self.attempts + 1
        record = {"resume": resume, "began_with": began_with and checkpoint_name(began_with.step, began_with.attempt)}
        self._run.write(f"attempt-{number}.json", canonical_json(record))
        return number

    def bring(self, name: str) -> SavedCheckpoint:
        """Check a checkpoint, and copy it here first if the run is at a distance.

        Raises:
            PermanentError: it is torn or damaged.
        """
        if self._run.local:
            return verify_checkpoint(self._run.folder / name)
        return verify_checkpoint(fetch_folder(self._run.address(name), self._scratch / name, marker=MANIFEST))

    def _newest(self) -> Found:
        """An attempt that has saved nothing and began with nothing leaves the branch before it the newest."""
        skipped: list[str] = []
        for attempt in range(self.attempts, 0, -1):
            found = self._first_whole(self._branch(attempt))
            skipped += [name for name in found.skipped if name not in skipped]
            if found.newest is not None:
                return Found(newest=found.newest, skipped=skipped, attempts=self.attempts)
        return Found(newest=None, skipped=skipped, attempts=self.attempts)

    def _first_whole(self, places: Iterator[tuple[int, int]]) -> Found:
        skipped: list[str] = []
        for step, attempt in places:
            name = checkpoint_name(step, attempt)
            try:
                return Found(newest=self.bring(name), skipped=skipped, attempts=self.attempts)
            except PermanentError as torn:
                skipped.append(f"{name}: {torn}")
        return Found(newest=None, skipped=skipped, attempts=self.attempts)

    def _branch(self, attempt: int, up_to: int | None = None) -> Iterator[tuple[int, int]]:
        """Steps and attempts of the attempt's past, newest first."""
        own = sorted((step for step, of in self._folders if of == attempt), reverse=True)
        yield from ((step, attempt) for step in own if up_to is None or step <= up_to)
        told = self._attempt(attempt)
        if told is None:
            # Of a time without records: it went on from the newest.
            if attempt > 1:
                yield from self._branch(attempt - 1, up_to)
        elif told.began_with is not None and told.began_with[1] < attempt:
            step, before = told.began_with
            yield from self._branch(before, step if up_to is None else min(step, up_to))

    def _every(self) -> list[tuple[int, int]]:
        """Those of the newest branch first, then the others by attempt."""
        branch = list(self._branch(self.attempts))
        return branch + sorted(self._folders - set(branch), key=lambda place: place[1], reverse=True)

    def _attempt(self, number: int) -> _Attempt | None:
        if number not in self._recorded:
            return None
        if number not in self._read:
            self._read[number] = self._parsed(number)
        return self._read[number]

    def _parsed(self, number: int) -> _Attempt:
        content = self._run.read(f"attempt-{number}.json", limit_bytes=_MAX_RECORD_BYTES)
        try:
            raw = json.loads(content)
            match = FOLDER.fullmatch(raw["began_with"]) if raw["began_with"] else None
            return _Attempt(resume=str(raw["resume"]), began_with=(int(match[1]), int(match[2])) if match else None)
        except (ValueError, KeyError, TypeError) as broken:
            raise PermanentError(
                "attempt's record cannot be read", got=self._run.address(f"attempt-{number}.json"), expected="JSON"
            ) from broken

    def remove_old(self, *, keep: int, newest: tuple[int, int]) -> list[str]:
        """Delete checkpoints of fewer steps than `newest` (step, attempt) but for the `keep` newest of its branch.

        Each folder loses its manifest first, so a deletion cut short leaves no half checkpoint that counts.
        Returns the names removed.
        """
        branch = [
            place
            for place in self._branch(newest[1], newest[0])
            if self._run.has(f"{checkpoint_name(*place)}/{MANIFEST}")
        ]
        removed = []
        for place in self._folders - set(branch[:keep]):
            if place[0] < newest[0]:
                self._run.remove(f"{checkpoint_name(*place)}/{MANIFEST}")
                self._run.remove_folder(checkpoint_name(*place))
                removed.append(checkpoint_name(*place))
        return sorted(removed)
