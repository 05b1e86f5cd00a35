"""What two regions of today say to each other and keep, recorded from a real run.

    python -m tests.fakes.recording 2026-12-24

writes `tests/recorded/agents/2026-12-24/`, one file for each kind of document with a few of them. Do so at a release:
every later agent is held against every folder (`tests/unit/test_recorded_agents.py`,
`tests/e2e/test_recorded_agents.py`). Folders are never changed.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from aiohttp import ClientConnectionError, ClientSession, web

from serving.credentials import SentToken, TokenFolder
from serving.gateway.app import GatewayConfig, assemble
from serving.regions.agent import Agent
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology
from serving.regions.registry import schema
from serving.regions.servers.launcher import LaunchSettings
from serving.regions.traffic.gateway_traffic import GatewayTraffic
from serving.web_server import ServerLimits, WebServer, bind_listener
from tests.fakes.ports import free_port
from tests.fakes.regions import (
    MODEL,
    client,
    finished,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    no_servers_left,
    reached,
    rolled_back,
    settled,
)
from tests.fakes.users import users_of

FOLDER: Final = Path(__file__).resolve().parent.parent / "recorded" / "agents"
_MOST: Final = 3
"""Documents of one kind and state."""


class Recorder:
    """A few documents of each kind, told apart by their states."""

    def __init__(self, root: Path) -> None:
        self._places = {str(root): "/state", sys.prefix: "/venv", sys.executable: "/venv/bin/python"}
        self.kinds: dict[str, dict[str, Any]] = {}

    def note(self, kind: str, document: Any) -> None:
        text = json.dumps(document)
        for place, name in self._places.items():
            text = text.replace(place, name)
        known = self.kinds.setdefault(kind, {})
        state = _state(document)
        # The last one of a state says the most.
        known[state] = json.loads(text)
        if len(known) > _MOST:
            del known[next(iter(known))]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for kind, documents in sorted(self.kinds.items()):
            lines = ",\n".join(json.dumps(document, separators=(",", ":")) for document in documents.values())
            (folder / f"{kind}.json").write_text(f"[\n{lines}\n]\n")


def _state(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    says = [document.get(name) for name in ("state", "ending", "model", "region")]
    mirrors = document.get("mirror") is not None
    return json.dumps([*says, mirrors, "evidence" in document])


def _kind(method: str, path: str) -> str | None:
    """`PUT /v1/peer/rollouts/p-1` is `peer-rollouts-put`; None for what no agent or gateway reads."""
    parts = path.strip("/").split("/")[1:]
    if parts[:1] == ["v1"]:
        parts = ["gateway", *parts[1:]]
    if not parts or parts[0] not in ("promotions", "rollbacks", "region", "peer", "gateway"):
        return None
    words = [parts[0]] if parts[0] not in ("peer", "gateway") else parts[:2]
    words += [part for part in parts[len(words) + 1 :] if part != "events"]
    return "-".join([*words, method.lower()])


@contextlib.asynccontextmanager
async def heard(recorder: Recorder, port: int, behind: str) -> AsyncIterator[None]:
    """A listener on `port` that passes everything on, and notes what was asked and answered."""
    async with ClientSession() as http:

        async def relay(request: web.Request) -> web.Response:
            body = await request.read()
            headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
            url = f"{behind}{request.rel_url}"
            try:
                async with http.request(request.method, url, data=body, headers=headers) as answer:
                    text = await answer.read()
            except ClientConnectionError:
                # It has not started yet.
                return web.Response(status=502)
            kind = _kind(request.method, request.path)
            if kind is not None and answer.status < 300:
                if body:
                    recorder.note(f"{kind}-order", json.loads(body))
                recorder.note(f"{kind}-answer", json.loads(text))
            passed = {n: v for n, v in answer.headers.items() if n.lower().startswith(("x-", "content-type"))}
            return web.Response(status=answer.status, body=text, headers=passed)

        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{rest:.*}", relay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def _regions(recorder: Recorder, topology: Topology) -> AsyncIterator[None]:
    """Gateways and agents of all regions behind listeners that note what they hear."""
    tokens = TokenFolder(folder=topology.token_folder)
    limits = ServerLimits(idle_grace_s=0.0, drain_s=5.0)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        for region in topology.regions:
            region.state_folder.mkdir(parents=True)
            for url, start in ((region.gateway_url, "gateway"), (region.agent_url, "agent")):
                listen = ("127.0.0.1", free_port())
                behind = f"http://127.0.0.1:{listen[1]}"
                await stack.enter_async_context(heard(recorder, int(url.rpartition(":")[2]), behind))
                if start == "gateway":
                    config = GatewayConfig(region=region, tokens=tokens, listen=listen)
                    assembled = await stack.enter_async_context(assemble(config))
                    server = WebServer(assembled.gateway, limits)
                    await server.start(bind_listener(*listen))
                    stack.push_async_callback(server.drain)
                else:
                    launch = LaunchSettings(poll_s=0.05, stop_grace_s=5.0)
                    agent = Agent(topology, region.name, launch=launch, listen=listen)
                    await agent.start()
                    stack.push_async_callback(agent.stop)
        yield


async def record(root: Path) -> Recorder:
    """Promotions that go live, fail and are aborted, and rollbacks of every kind, under users."""
    root.mkdir(parents=True, exist_ok=True)
    topology = make_topology(root, "home", "away")
    recorder = Recorder(root)
    async with _regions(recorder, topology):
        home, away = client(topology), client(topology, region="away")
        await _promote(root, topology, home, 1)
        async with users_of(topology, "home", "away"):
            watched = {"watch_s": 1.0, "watch_share": 0.5, "mirror_share": 1.0, "standby_s": 60.0}
            await _promote(root, topology, home, 2, **watched)
            await home.put_rollback("back-1", make_rollback())
            await rolled_back(home, "back-1")
            assert await _promote(root, topology, home, 3, golden_seed=5) == "rolled_back"
            await _abort(root, topology, home, 4)
            assert await _promote(root, topology, home, 5) == "live"
            await away.put_rollback("back-2", make_rollback(regions=["away"]))
            await rolled_back(away, "back-2")
            async with asyncio.timeout(60):
                while "back-2" not in [entry["id"] for entry in await home.rollbacks()]:
                    await asyncio.sleep(0.1)
            for agent in (home, away):
                await settled(agent)
            await _ask_all(topology)
        _read_state(recorder, topology)
    return recorder


async def _ask_all(topology: Topology) -> None:
    """What agents ask only where an answer takes its time."""
    tokens = TokenFolder(folder=topology.token_folder)
    for region in topology.regions:
        peer = client(topology, "peer", region.name)
        await peer.region()
        await peer.get_rollout("p-2")
        await peer.get_region_rollback("back-1")
        gateway = GatewayTraffic(region.gateway_url, SentToken(tokens, "gateway"))
        await gateway.routes()
        await gateway.stats(MODEL)


async def _promote(
    root: Path, topology: Topology, home: AgentClient, number: int, *, golden_seed: int = 0, **policy: Any
) -> str:
    id = f"p-{number}"
    bundle = make_bundle(root, topology, samples=16 + 2 * number, golden_seed=golden_seed)
    await home.put_promotion(id, make_order(make_release(root, f"rel-{number}", bundle), ["home", "away"], **policy))
    state = str((await finished(home, id))["state"])
    for region in topology.regions:
        await settled(client(topology, region=region.name))
    return state


async def _abort(root: Path, topology: Topology, home: AgentClient, number: int) -> None:
    """While the second region's canary waits for more requests than come."""
    id, bundle = f"p-{number}", make_bundle(root, topology, samples=16 + 2 * number)
    order = make_order(make_release(root, f"rel-{number}", bundle), ["away", "home"], min_requests=100_000)
    await home.put_promotion(id, order)
    await reached(home, id, "away", "canary")
    await home.pause_promotion(id)
    await home.abort_promotion(id)
    await finished(home, id)


def _read_state(recorder: Recorder, topology: Topology) -> None:
    """What agents and gateways have on their disks."""
    for region in topology.regions:
        engine = sa.create_engine(region.registry_url)
        with engine.connect() as connection:
            for table in (schema.promotions, schema.rollouts, schema.rollbacks, schema.rollback_orders):
                for row in connection.execute(sa.select(table.c.document)):
                    recorder.note(f"stored-{table.name.replace('_', '-')}", row.document)
            for row in connection.execute(sa.select(schema.releases.c.runtime)):
                recorder.note("stored-runtime", row.runtime)
        engine.dispose()
        for path in (region.state_folder / "servers").glob("*.json"):
            recorder.note("stored-server-record", json.loads(path.read_bytes()))
        recorder.note("stored-routes", json.loads((region.state_folder / "routes.json").read_bytes()))
        recorder.note("stored-clock", json.loads((region.state_folder / "clock.json").read_bytes()))


def recorded(folder: Path) -> dict[str, list[Any]]:
    """Documents by kind."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    (name,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as root:
        recorder = asyncio.run(record(Path(root).resolve()))
    recorder.write(FOLDER / name)


if __name__ == "__main__":
    main()
