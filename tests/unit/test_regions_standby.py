"""When the server that stands by beside the live one ends."""

from dataclasses import replace

import pytest

from serving.regions.deciding.rollout_state import Server
from serving.regions.registry.registry import LiveModel
from serving.regions.servers.launcher import ServerStatus
from serving.regions.servers.standby import end_of_standby

LIVE_NOW = LiveModel(model="m", release_id="rel-2", previous_release_id="rel-1", reason=None)


@pytest.mark.parametrize(
    ("status", "now", "free", "why"),
    [
        (ServerStatus(state=Server.READY), 9.0, 0.5, None),
        (ServerStatus(state=Server.STARTING), 9.0, 0.5, None),
        (ServerStatus(state=Server.READY), 10.0, 0.5, "its time is over"),
        (ServerStatus(state=Server.READY), 9.0, 0.05, "5% of the memory is free"),
        (ServerStatus(state=Server.FAILED, note="exited with 1"), 9.0, 0.5, "it does not run exited with 1"),
        (ServerStatus(state=Server.ABSENT), 9.0, 0.5, "it does not run"),
        (ServerStatus(state=Server.STARTING, degraded=True), 9.0, 0.5, "it does not run"),
    ],
)
def test_a_standby_ends_when_there_is_a_reason(status: ServerStatus, now: float, free: float, why: str | None) -> None:
    live = replace(LIVE_NOW, standby="rel-1", standby_until=10.0)
    assert end_of_standby(live, status, now=now, free_memory=free) == why
