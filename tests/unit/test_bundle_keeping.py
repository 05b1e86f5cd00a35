"""Which bundles a region audits, and which it keeps."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from serving.regions.acting.bundle_keeping import BundleKeeping
from serving.regions.places.peers import Peers
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.replication import BundleAudit
from serving.releases import Release, RuntimeSpec

EVENT = Event(kind="rollout", subject="m", message="live", detail={})


def make_release(number: int) -> Release:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    digest = f"sha256:{number:064}"
    return Release(id=f"v{number}", model="m", bundle_digest=digest, store_uri="memory://s", runtime=runtime)


class NotedAudit:
    """Finds nothing, and notes what it was asked to read and to keep."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.kept: set[str] = set()

    def audit(self, wanted: Collection[Release], **_: Any) -> list[Any]:
        self.read = [release.id for release in wanted]
        return []

    def collect(self, wanted: Collection[str], **_: Any) -> list[Any]:
        self.kept = set(wanted)
        return []


async def test_what_is_live_or_stands_by_is_read_and_a_candidate_is_left_to_its_rollout(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    releases = [make_release(number) for number in range(5)]
    for release in releases:
        registry.add_release(release)
    live = LiveModel(model="m", release_id="v2", previous_release_id="v1", reason=None, standby="v3")
    registry.set_live(live, EVENT)
    audit = NotedAudit()
    keeping = BundleKeeping(
        cast(BundleAudit, audit), registry=registry, peers=Peers([], str), wanted=lambda: {"v2", "v3", "v4"}
    )
    await keeping.look_after()
    registry.close()
    assert audit.read == ["v2", "v3"]
    assert audit.kept == {release.bundle_digest for release in releases[1:]}
