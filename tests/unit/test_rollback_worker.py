"""A region takes a rollback's order whatever wrote the documents in its registry."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import LIVE, Rollout, Server
from serving.regions.places.topology import Region
from serving.regions.registry.epochs import EpochStore
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.servers.launcher import ServerStatus
from serving.regions.servers.server_process import ServerSpec
from serving.releases import Release, RuntimeSpec

EVENT = Event(kind="rollout", subject="m", message="live", detail={})


class NoServers:
    """A launcher that runs nothing."""

    async def ensure(self, spec: ServerSpec, *, restart: bool) -> None:
        raise AssertionError(f"{spec.name} is not to be started")

    def status(self, name: str) -> ServerStatus:
        return ServerStatus(state=Server.ABSENT)

    def names(self) -> list[str]:
        return []

    async def stop(self, name: str) -> None:
        raise AssertionError(f"{name} does not run")


def release(id: str) -> Release:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    return Release(id=id, model="m", bundle_digest="sha256:" + "0" * 64, store_uri="memory://s", runtime=runtime)


async def test_a_rollout_of_before_gates_weighed_evidence_does_not_stand_in_the_way(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    for version, id in enumerate(("rel-1", "rel-2"), start=1):
        rollout = Rollout(id=id, region="here", release=release(id), version=version, policy=PromotionPolicy())
        document = replace(rollout, state=LIVE, settled=True).to_json()
        document["policy"] = {"max_p95_ratio": 2.0, "p95_floor_ms": 50.0, "min_labelled": 30, "drain_s": 3.0}
        registry.add_rollout(id, rollout.release, version, document, EVENT)
        previous = "rel-1" if version == 2 else None
        live = LiveModel(model="m", release_id=id, previous_release_id=previous, reason=None)
        registry.save_rollout(id, document, settled=True, live=live)
    worker = RollbackWorker(
        Region(name="here", gateway_url="", agent_url="", store_uri="", registry_url="", state_folder=tmp_path),
        registry=registry,
        launcher=NoServers(),
        serving=cast(ServingState, None),
        metrics=AgentMetrics(),
        epochs=EpochStore(registry, "here"),
    )
    order = {"schema_version": 1, "model": "m", "release": None, "bad": "rel-2", "reason": "slow", "supersedes": []}
    part = await worker.put_region_rollback("back", order)
    assert (part["release"], worker.under_way()[0].drain_s) == ("rel-1", 3.0)
    # Nothing has been awaited since: its work has not begun.
    await worker.close()
    registry.close()
