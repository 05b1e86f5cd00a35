"""A rollout of one release over another in any state, and what may be observed of it."""

from typing import Any

from serving.counters import Counters, Snapshot
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import GOLDEN, STARTING, Observation, Rollout, Server, Step
from serving.regions.registry.registry import LiveModel
from serving.releases import Release, RuntimeSpec
from tests.fakes.counted import BOUNDS_MS

OLD, NEW, REGION = "rel-1", "rel-2", "here"
POLICY = PromotionPolicy(
    steps_percent=[5, 50, 100],
    min_requests=10,
    bake_s=20.0,
    step_timeout_s=60.0,
    required_gates=[],
    drain_s=5.0,
    standby_s=0.0,
    start_timeout_s=60.0,
    watch_s=0.0,
)
LIVE_OLD = LiveModel(model="m", release_id=OLD, previous_release_id="rel-0", reason=None)
LIVE_NEW = LiveModel(model="m", release_id=NEW, previous_release_id=OLD, reason=None)
BEGAN = 100.0
"""When the open step began."""


def make_release(id: str = NEW) -> Release:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    return Release(id=id, model="m", bundle_digest="sha256:" + "0" * 64, store_uri="memory://s", runtime=runtime)


def rollout_in(state: str, *, percent: int | None = None, **changes: Any) -> Rollout:
    """One that has two steps behind it and whose open step began at `BEGAN`; rel-1 was live before."""
    before = [
        Step(state=STARTING, percent=None, started_at=0.0, finished_at=10.0),
        Step(state=GOLDEN, percent=None, started_at=10.0, finished_at=BEGAN),
    ]
    facts = {
        "policy": POLICY,
        "plan": [5, 50, 100],
        "previous": OLD,
        "previous_version": 1,
        "steps": [*before, Step(state=state, percent=percent, started_at=BEGAN)],
        **changes,
    }
    return Rollout(id="p", region=REGION, release=make_release(), version=2, state=state, percent=percent, **facts)


def gateway(*, new: Counters | None = None, old: Counters | None = None, boot_id: str = "b") -> Snapshot:
    """What the region's gateway has counted of both; a release that is not named is none of its backends."""
    backends = {f"{NEW}@{REGION}": new, f"{OLD}@{REGION}": old}
    known = {name: counted for name, counted in backends.items() if counted is not None}
    return Snapshot(boot_id=boot_id, bounds_ms=BOUNDS_MS, backends=known)


def ready(stats: Snapshot | None = None, **changes: Any) -> Observation:
    """Both servers answer, and the version before is live."""
    facts = {"candidate": Server.READY, "previous": Server.READY, "live": LIVE_OLD, "live_version": 1, **changes}
    return Observation(stats=stats, **facts)
