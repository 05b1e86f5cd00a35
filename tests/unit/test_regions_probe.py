"""What a model server is asked to know that it lives, what counts as an answer, and what as a sign of work."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from serving.bundle import Manifest, TensorSpec, Variant
from serving.engines.metrics import EngineMetrics
from serving.engines.protocol import DATATYPES, parse_infer_request
from serving.regions.servers.commands import BUILTIN, Engine
from serving.regions.servers.probe import Probe, ProbeSettings, Question, Signs, make_question
from serving.regions.servers.server_process import ServerSpec
from serving.releases import RuntimeSpec

ONNX, VLLM, CUSTOM = BUILTIN["onnxruntime"], BUILTIN["vllm"], Engine(before=[])
QUESTION = Question(path="/v2/models/m/infer", body=b"{}")
HEARD_NOTHING = Signs(answered=False, working=False)


def make_spec(bundle: Path, inputs: list[TensorSpec] | None) -> ServerSpec:
    if inputs is not None:
        variant = Variant(name="v", runtime="onnxruntime", entry="model", files=[])
        manifest = Manifest(name="m", family="f", inputs=inputs, outputs=[], variants=[variant])
        (bundle / "manifest.json").write_bytes(manifest.to_bytes())
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    return ServerSpec(name="rel-1", model="Meta/m", version=1, bundle=bundle, runtime=runtime)


def test_a_model_with_inputs_is_asked_for_one_row_that_its_engine_takes(tmp_path: Path) -> None:
    inputs = [TensorSpec(name=type_, datatype=type_, shape=[-1, 3, -1]) for type_ in DATATYPES]
    question = make_question(make_spec(tmp_path, inputs), ONNX)
    assert question.path == "/v2/models/Meta%2Fm/infer"
    assert question.body is not None
    request = parse_infer_request(question.body, inputs=inputs, outputs=[], max_rows=1)
    assert {tensor.shape for tensor in request.inputs.values()} == {(1, 3, 1)}


def test_a_model_of_a_fixed_batch_is_asked_for_just_that(tmp_path: Path) -> None:
    inputs = [TensorSpec(name="x", datatype="FP32", shape=[4, 2])]
    body = make_question(make_spec(tmp_path, inputs), ONNX).body
    assert body is not None
    assert parse_infer_request(body, inputs=inputs, outputs=[], max_rows=4).rows == 4


def test_a_language_model_is_asked_for_one_token(tmp_path: Path) -> None:
    question = make_question(make_spec(tmp_path, []), VLLM)
    assert question.path == "/v1/completions"
    assert json.loads(question.body or b"") == {"model": "Meta/m", "prompt": " ", "max_tokens": 1, "temperature": 0}


def test_a_server_whose_bundle_cannot_be_read_is_asked_whether_it_is_ready(tmp_path: Path) -> None:
    assert make_question(make_spec(tmp_path, None), ONNX) == Question(path="/v2/health/ready", body=None)


@dataclass
class StandIn:
    """A model server whose answers wait for `go` and whose metrics are what the test says."""

    url: str = ""
    status: int = 200
    metrics: str = ""
    ready: bool = True
    asked: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def infer(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self.go.wait()
        return web.Response(status=self.status)

    async def tell(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            return web.Response(text=self.metrics)
        return web.Response(status=200 if self.ready else 503)


@contextlib.asynccontextmanager
async def serving(stand_in: StandIn) -> AsyncIterator[StandIn]:
    app = web.Application()
    app.router.add_post("/v2/models/m/infer", stand_in.infer)
    app.router.add_get("/{path:.*}", stand_in.tell)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stand_in
    finally:
        stand_in.go.set()
        await runner.cleanup()


@dataclass
class Asked:
    """A probe under a clock of the test's own."""

    probe: Probe
    now: list[float]

    async def heard(self, wanted: Signs) -> None:
        """Until a look has heard this; the clock stands still."""
        async with asyncio.timeout(30):
            while self.probe.look(urgent=False) != wanted:
                await asyncio.sleep(0.005)

    async def work_looked_for(self) -> Signs:
        """What the next look for signs of work finds."""
        self.now[0] += 5.0
        before = set(asyncio.all_tasks())
        self.probe.look(urgent=False)
        (looking,) = (task for task in asyncio.all_tasks() - before if task.get_coro().__name__ == "_look_for_work")
        await looking
        return self.probe.look(urgent=False)


@contextlib.asynccontextmanager
async def asking(server: StandIn, engine: Engine, settings: ProbeSettings | None = None) -> AsyncIterator[Asked]:
    now = [0.0]
    async with serving(server), aiohttp.ClientSession() as session:
        probe = Probe(session, server.url, QUESTION, engine, settings=settings or ProbeSettings(), clock=lambda: now[0])
        yield Asked(probe, now)
        probe.close()
        # The tasks that were cancelled end in a turn of the loop.
        await asyncio.sleep(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("status", [200, 400, 500, 503])
async def test_any_answer_is_a_sign_of_life(status: int) -> None:
    server = StandIn(status=status)
    server.go.set()
    async with asking(server, ONNX) as asked:
        await asked.heard(Signs(answered=True, working=False))
        assert asked.probe.look(urgent=False) == HEARD_NOTHING


async def test_the_next_question_comes_after_its_time_or_at_once_when_it_is_urgent() -> None:
    server = StandIn()
    server.go.set()
    async with asking(server, ONNX) as asked:
        await asked.heard(Signs(answered=True, working=False))
        asked.now[0] = 1.9
        asked.probe.look(urgent=False)
        assert server.asked == 1
        asked.probe.look(urgent=True)
        await until(lambda: server.asked == 2)
        await asked.heard(Signs(answered=True, working=False))
        asked.now[0] = 4.0
        await asked.heard(Signs(answered=True, working=False))
        assert server.asked == 3


async def test_a_slow_server_is_asked_less_often() -> None:
    server = StandIn()
    async with asking(server, ONNX) as asked:
        asked.probe.look(urgent=False)
        await until(lambda: server.asked == 1)
        asked.now[0] = 0.5
        server.go.set()
        await asked.heard(Signs(answered=True, working=False))
        asked.now[0] = 10.4
        asked.probe.look(urgent=False)
        asked.now[0] = 10.6
        await asked.heard(Signs(answered=True, working=False))
        assert server.asked == 2


async def test_a_server_that_took_minutes_is_asked_again_soon_enough_not_to_seem_silent() -> None:
    server = StandIn()
    async with asking(server, ONNX) as asked:
        asked.probe.look(urgent=False)
        await until(lambda: server.asked == 1)
        asked.now[0] = 100.0
        server.go.set()
        await asked.heard(Signs(answered=True, working=False))
        asked.now[0] = 115.1
        await asked.heard(Signs(answered=True, working=False))


async def test_a_question_that_was_lost_is_followed_by_another() -> None:
    server = StandIn()
    async with asking(server, ONNX) as asked:
        asked.probe.look(urgent=False)
        await until(lambda: server.asked == 1)
        asked.now[0] = 15.0
        asked.probe.look(urgent=True)
        await until(lambda: server.asked == 2)


async def test_metrics_that_move_with_each_run_are_signs_of_work_and_others_are_not() -> None:
    metrics = EngineMetrics(model="m", version="1")
    server = StandIn()

    def told(queued: int) -> None:
        server.metrics = metrics.render(queued=queued).decode()

    async with asking(server, ONNX) as asked:
        told(queued=0)
        asked.probe.look(urgent=False)
        assert await asked.work_looked_for() == HEARD_NOTHING
        # A full queue: requests are counted, and none is run.
        metrics.count(503)
        told(queued=256)
        assert await asked.work_looked_for() == HEARD_NOTHING
        metrics.observe_batch(32)
        told(queued=224)
        assert await asked.work_looked_for() == Signs(answered=False, working=True)
        assert await asked.work_looked_for() == HEARD_NOTHING


async def test_a_runtime_that_tells_no_work_has_the_benefit_of_the_doubt_while_it_says_ready() -> None:
    server = StandIn()
    async with asking(server, CUSTOM) as asked:
        asked.probe.look(urgent=False)
        assert await asked.work_looked_for() == Signs(answered=False, working=True)
        server.ready = False
        assert await asked.work_looked_for() == HEARD_NOTHING
