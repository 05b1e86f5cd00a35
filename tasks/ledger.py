"""What a release has already done, so that the same release id again resumes instead of repeating.

Each stage leaves its artifact as `releases/<id>/<stage>.json` in the store, written after everything
it points at is durable. The file is the artifact's plain JSON: `pyflyte run` takes it as an input.
Flyte's own cache cannot serve here: it hits even when the files behind an output are gone.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import fsspec

from serving.errors import Conflict
from serving.releases import check_name
from serving.store import ArtifactStore
from tasks.artifacts import Figure, ReleasePlan
from tasks.progress import announce

Artifact = TypeVar("Artifact")

_IDENTITY = ("recipe", "overrides", "recipe_sources", "seed", "data_hash")


@dataclass(frozen=True, slots=True)
class Ledger:
    """The records of one release in one store."""

    store: ArtifactStore
    release_id: str

    def __post_init__(self) -> None:
        check_name("release id", self.release_id)

    def address(self, stage: str) -> str:
        return self.store.address(self._path(stage))

    def _path(self, stage: str) -> str:
        return f"releases/{self.release_id}/{stage}.json"

    def claim(self, plan: ReleasePlan) -> ReleasePlan:
        """Write the plan of a new release, or return the one it began with; another content is a conflict."""
        known = self.read("plan", ReleasePlan)
        if known is None:
            self.write("plan", plan)
            return plan
        for name in _IDENTITY:
            if getattr(known, name) != getattr(plan, name):
                raise Conflict(
                    f"release id {self.release_id} already stands for another {name}",
                    got=getattr(plan, name),
                    expected=getattr(known, name),
                )
        return dataclasses.replace(plan, code_version=known.code_version)

    def raw(self, stage: str) -> dict[str, Any] | None:
        """The stage's record as plain JSON."""
        return self.store.read_record(self._path(stage))

    def read(self, stage: str, kind: type[Artifact]) -> Artifact | None:
        raw = self.raw(stage)
        return None if raw is None else artifact_from_json(kind, raw)

    def write(self, stage: str, artifact: Any) -> None:
        self.store.write_record(self._path(stage), asdict(artifact))

    def once(self, stage: str, kind: type[Artifact], produce: Callable[[], Artifact]) -> Artifact:
        """The stage's artifact: the recorded one if what it points at is still there, else a new one."""
        known = self.read(stage, kind)
        if known is not None and _still_there(known):
            announce(stage, "already done in this release")
            return known
        announce(stage, "started")
        began = time.monotonic()
        artifact = produce()
        self.write(stage, artifact)
        announce(stage, "done", seconds=time.monotonic() - began)
        return artifact


def _still_there(artifact: Any) -> bool:
    uri = getattr(artifact, "uri", None)
    if uri is None:
        return True
    system, path = fsspec.core.url_to_fs(uri)
    return bool(system.exists(path))


def artifact_from_json(kind: type[Artifact], raw: dict[str, Any]) -> Artifact:
    """Rebuild an artifact; fields of a later version are ignored, missing ones are an error of its class."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    known = {name: value for name, value in raw.items() if name in names}
    if "figures" in known:
        known["figures"] = [Figure(**figure) for figure in known["figures"]]
    return kind(**known)


def fingerprint(value: Any) -> str:
    """A short, stable name for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
