"""Three regions with users, a real Prometheus in each, and one that federates them: no rule and no panel is empty.

Real: gateways, agents, model servers, promotions, rollbacks, a killed server, Prometheus, Alertmanager, the blackbox
exporter, and the repository's configuration for them. Emulated (tests/fakes/exporters.py, faulty_llm.py): GPUs,
kubelets, kube-state-metrics, vLLM, the operator's cluster, and a failing model server behind a second gateway.

Of an alert its comparison is dropped, so that it returns what it would judge; and `offset`, since a Prometheus that is
a minute old knows nothing of two hours ago.
"""

import asyncio
import contextlib
import itertools
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.cost.prices import load_prices
from infra.observability.files import FOLDER, read_rules, rule_files
from infra.observability.panels import BOARDS
from infra.observability.prices import price_rules
from serving.processes import read_records
from serving.regions.places.topology import LOCAL_REGIONS, Topology
from tests.fakes.exporters import NODES, Exporters
from tests.fakes.faulty_backend import FaultyBackend, answer_class, answer_status
from tests.fakes.faulty_llm import stream, whole
from tests.fakes.gateways import LocalGateway, backend, infer_body, local_gateway, mirror, route
from tests.fakes.prometheus import Alertmanager, BlackboxExporter, Prometheus, missing_programs
from tests.fakes.regions import (
    MODEL,
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    rolled_back,
    running_regions,
)

pytestmark = pytest.mark.skipif(
    bool(missing_programs()),
    reason=f"{missing_programs()} missing: apt-get install prometheus prometheus-alertmanager"
    " prometheus-blackbox-exporter",
)
PRICES = load_prices(FOLDER.parent.parent / "examples/infra/prices.json")
_COMPARISON = re.compile(r"\s+(?:[<>]=?|[!=]=)\s+-?[\d.]+")
_OFFSET = re.compile(r"\s+offset\s+\w+")
HOME_ALONE = {
    "flightpath:promotions:increase1d",
    "flightpath:promotions_rolled_back:increase15m",
    "PromotionRolledBack",
}
"""Only the home region's agent finishes promotions."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The regions and those who watch them."""

    root: Path
    topology: Topology
    exporters: Exporters
    alertmanager: Alertmanager
    regional: Mapping[str, Prometheus]
    everywhere: Prometheus

    async def promote(self, number: int) -> None:
        digest = make_bundle(self.root, self.topology, samples=8 * number)
        release, home = make_release(self.root, f"digits-{number}", digest), client(self.topology)
        await home.put_promotion(release["id"], make_order(release, list(LOCAL_REGIONS)))
        assert (await finished(home, release["id"]))["state"] == "live"

    async def roll_back(self, id: str, to: str) -> None:
        home = client(self.topology)
        await home.put_rollback(id, make_rollback({"release": to}))
        assert (await rolled_back(home, id))["state"] != "running"

    def kill_servers(self) -> None:
        """Every live model server dies; its launcher starts it again."""
        for region in self.topology.regions:
            for record in read_records(region.state_folder / "servers"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)


async def use(topology: Topology, gateways: Mapping[str, LocalGateway]) -> None:
    """Users of every region, until cancelled."""
    chat = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    while True:
        for name, gateway in gateways.items():
            with contextlib.suppress(OSError):
                await infer(topology, name)
            await gateway.http.post("/v2/models/digits/infer", content=infer_body())
            await gateway.http.post("/v1/chat/completions", json=chat)
        await asyncio.sleep(0.1)


def regional_prometheus(
    root: Path, topology: Topology, name: str, second: LocalGateway, exporters: Exporters, alertmanager: str, probe: str
) -> Prometheus:
    region = topology.region(name)

    def emulated(path: str, **labels: str) -> list[dict[str, Any]]:
        return [{"targets": [exporters.address], "labels": {"__metrics_path__": path, **labels}}]

    urls = [region.gateway_url, second.url]
    targets = {
        "gateway": [{"targets": [url.removeprefix("http://") for url in urls]}],
        "agent": [{"targets": [region.agent_url.removeprefix("http://")]}],
        "servers": [{"targets": [region.agent_url.removeprefix("http://")]}],
        "engine": emulated("/vllm"),
        "operator": emulated("/operator"),
        "dcgm": emulated("/dcgm", **NODES[0]),
        "kubelet": emulated("/kubelet", **NODES[0]),
        "cadvisor": emulated("/cadvisor", **NODES[0]),
        "kube-state-metrics": emulated("/kube-state-metrics"),
        "otel-collector": emulated("/otel-collector"),
    }
    probes = [{"targets": [f"{r.gateway_url}/v1/models"], "labels": {"target": r.name}} for r in topology.regions]
    return Prometheus(
        root / f"prometheus-{name}",
        "region",
        name=name,
        targets=targets,
        files={"regions.yml": probes},
        alertmanager=alertmanager,
        blackbox=probe,
        prices=price_rules(PRICES, "us-east-1", budget_usd=30_000),
    )


@contextlib.asynccontextmanager
async def watched_world(root: Path) -> AsyncIterator[World]:
    topology = make_topology(root, *LOCAL_REGIONS)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_regions(topology))
        exporters = stack.enter_context(Exporters())
        alertmanager = stack.enter_context(Alertmanager(root / "alertmanager"))
        probe = stack.enter_context(BlackboxExporter(root / "blackbox"))
        gateways = {name: await stack.enter_async_context(second_gateway(root, name)) for name in LOCAL_REGIONS}
        regional = {
            name: stack.enter_context(
                regional_prometheus(root, topology, name, second, exporters, alertmanager.address, probe.address)
            )
            for name, second in gateways.items()
        }
        federated = [{"targets": [p.address], "labels": {"region": name}} for name, p in regional.items()]
        everywhere = stack.enter_context(
            Prometheus(
                root / "prometheus-global",
                "global",
                name="global",
                targets={},
                files={"federate.yml": federated},
                alertmanager=alertmanager.address,
            )
        )
        users = asyncio.create_task(use(topology, gateways))
        try:
            yield World(
                root=root,
                topology=topology,
                exporters=exporters,
                alertmanager=alertmanager,
                regional=regional,
                everywhere=everywhere,
            )
        finally:
            users.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await users


@contextlib.asynccontextmanager
async def second_gateway(root: Path, name: str) -> AsyncIterator[LocalGateway]:
    """A second replica with what the agent's has not: a language model, and a model server that fails."""
    with ExitStack() as stack:
        good = stack.enter_context(FaultyBackend(answer_class(3)))
        bad = stack.enter_context(FaultyBackend(answer_status(500)))
        texts = stack.enter_context(FaultyBackend(stream(*whole("a", "b", "c"))))
        async with local_gateway(root / f"second-{name}", region=name) as gateway:
            pair = [backend(f"{n}@{name}", b.url, weight=50, region=name) for n, b in (("good", good), ("bad", bad))]
            await gateway.put(route(*pair, mirror=mirror(f"bad@{name}", f"good@{name}")))
            await gateway.put(route(backend(f"tiny@{name}", texts.url, weight=100, region=name), model="tiny"))
            yield gateway


def alert_expressions(*folders: str) -> Iterator[tuple[str, str]]:
    for rule in read_rules(rule_files(*folders)):
        yield rule["alert"], _OFFSET.sub("", _COMPARISON.sub("", rule["expr"]))


def questions(world: World) -> Iterator[tuple[Prometheus, str, str]]:
    """Who is asked, what it is for, and the expression."""
    home = world.topology.home_region
    for name, prometheus in world.regional.items():
        for alert, expression in alert_expressions("alerts/region", "alerts/shared"):
            if name == home or alert not in HOME_ALONE:
                yield prometheus, alert, expression
    for alert, expression in alert_expressions("alerts/global", "alerts/shared"):
        yield world.everywhere, alert, expression
    for board in BOARDS:
        for panel in itertools.chain.from_iterable(board.rows.values()):
            for series in panel.series:
                regions = (home,) if series.record in HOME_ALONE else LOCAL_REGIONS
                for region in ("",) if series.everywhere else regions:
                    expression = series.expr.replace("$region", region)
                    yield world.everywhere, f"{board.uid}: {panel.title}", expression


def unanswered(asked: list[tuple[Prometheus, str, str]]) -> list[tuple[Prometheus, str, str]]:
    return [question for question in asked if not question[0].query(question[2])]


async def until_answered(world: World, timeout_s: float) -> list[str]:
    """Ask again what was empty until nothing is or the time is over; returns what stayed empty."""
    left = list(questions(world))
    assert len(left) > 250
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while left := await asyncio.to_thread(unanswered, left):
                await asyncio.sleep(0.5)
    return sorted({f"{name}: {expression}" for _, name, expression in left})


async def scraped_twice(world: World, metric: str, *, timeout_s: float = 30) -> None:
    """A counter that appears with its first event shows a rate only by an event after that."""
    async with asyncio.timeout(timeout_s):
        for prometheus in world.regional.values():
            while not await asyncio.to_thread(prometheus.query, f"count_over_time({metric}[1m]) > 1"):
                await asyncio.sleep(0.2)


async def roll_back_under_way(world: World) -> None:
    """Back and forth until users of every region met the replaced version twice: a matter of when they ask."""
    answered = "flightpath_rollback_last_bad_answer_seconds_count"
    for number, to in enumerate(itertools.islice(itertools.cycle(("digits-1", "digits-2")), 10)):
        await world.roll_back(f"back-{number}", to)
        with contextlib.suppress(TimeoutError):
            await scraped_twice(world, answered, timeout_s=4)
            if all(prometheus.query(f"increase({answered}[1m]) > 0") for prometheus in world.regional.values()):
                return
    raise AssertionError("in ten rollbacks no user met the replaced version")


async def told(world: World, alert: str, region: str) -> list[str]:
    """The receivers that Alertmanager chose once it has heard of the alert."""
    async with asyncio.timeout(30):
        while True:
            for found in await asyncio.to_thread(world.alertmanager.alerts):
                if (found["labels"]["alertname"], found["labels"].get("region")) == (alert, region):
                    return [receiver["name"] for receiver in found["receivers"]]
            await asyncio.sleep(0.2)


@pytest.mark.smoke
@pytest.mark.timeout(300)
async def test_every_alert_and_every_panel_returns_data(tmp_path: Path) -> None:
    async with watched_world(tmp_path) as world:
        await world.promote(1)
        await scraped_twice(world, "flightpath_rollout_state_seconds_count")
        await world.promote(2)
        await roll_back_under_way(world)
        world.kill_servers()
        world.exporters.xid = 79
        empty = await until_answered(world, 60)
        assert empty == []
        for region in LOCAL_REGIONS:
            assert await told(world, "GpuFaults", region) == ["training"]
        regions = {found["metric"]["region"] for found in world.everywhere.query("flightpath:gateway_requests:rate5m")}
        assert regions == set(LOCAL_REGIONS)
        requests = world.everywhere.query(f'flightpath:global_requests:rate5m{{model="{MODEL}"}}')
        assert float(requests[0]["value"][1]) > 0
        for prometheus in (*world.regional.values(), world.everywhere):
            assert prometheus.query("sum(prometheus_rule_evaluation_failures_total)")[0]["value"][1] == "0"
