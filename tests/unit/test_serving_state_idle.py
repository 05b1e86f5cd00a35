"""What a region costs that stands still."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import sqlalchemy as sa

from serving.bundle import MANIFEST
from serving.counters import Snapshot
from serving.regions.acting.serving_state import ServingState
from serving.regions.deciding.rollout_state import Server
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.replication import Replicator
from serving.regions.servers.launcher import ServerStatus
from serving.regions.servers.server_process import ServerSpec
from serving.regions.traffic.gateway_traffic import GatewayTraffic
from serving.releases import Release, RuntimeSpec
from serving.routes import Route

MODELS = 200
DIGEST = "sha256:" + "0" * 64


class ReadyServers:
    async def ensure(self, spec: ServerSpec, *, restart: bool) -> None:
        """They run."""

    def status(self, name: str) -> ServerStatus:
        return ServerStatus(state=Server.READY, url="http://127.0.0.1:1")

    def names(self) -> list[str]:
        return [f"r{number}" for number in range(MODELS)]

    async def stop(self, name: str) -> None:
        raise AssertionError(f"{name} is live")


class Gateway:
    def __init__(self) -> None:
        self.in_force: dict[str, Route] = {}
        self.calls = 0

    async def routes(self) -> dict[str, Route]:
        self.calls += 1
        return self.in_force

    async def set_route(self, route: Route) -> None:
        self.in_force[route.model] = route

    async def stats(self, model: str) -> Snapshot:
        self.calls += 1
        return Snapshot(boot_id="b")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    for number in range(MODELS):
        id, model = f"r{number}", f"m{number}"
        opened.add_release(Release(id=id, model=model, bundle_digest=DIGEST, store_uri="memory://s", runtime=runtime))
        live = LiveModel(model=model, release_id=id, previous_release_id=None, reason=None)
        opened.set_live(live, Event(kind="rollout", subject=id, message="live", detail={}))
    yield opened
    opened.close()


async def test_a_region_that_stands_still_reads_no_rows_and_asks_its_gateway_once(
    registry: Registry, tmp_path: Path
) -> None:
    region = Region(name="r", gateway_url="", agent_url="", store_uri="", registry_url="", state_folder=tmp_path)
    replicator, gateway, now = Replicator(region=region, key_folder=tmp_path), Gateway(), 0.0
    folder = replicator.folder(DIGEST)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    serving = ServingState(
        "r",
        registry=registry,
        launcher=ReadyServers(),
        traffic=cast(GatewayTraffic, gateway),
        peers=Peers([], str),
        replicator=replicator,
        clock=lambda: now,
    )
    await serving.look_after()
    assert (len(gateway.in_force), serving.gateway_error) == (MODELS, None)
    statements: list[str] = []
    sa.event.listen(registry.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    gateway.calls = 0
    for _ in range(20):
        await serving.look_after()
    assert ([said for said in statements if said.startswith("SELECT")], gateway.calls) == ([], 20)
