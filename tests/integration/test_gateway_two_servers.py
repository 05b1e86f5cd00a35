"""How far a request goes, and how long: two servers at most, within a budget, and nobody waits for a stopped one."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.lateness import Bounds, LatenessLimits
from serving.gateway.retries import RetryLimits
from serving.gateway.upstream import UpstreamLimits
from tests.fakes import faulty_llm as llm
from tests.fakes.faulty_backend import (
    Behaviour,
    FaultyBackend,
    answer_body,
    answer_class,
    answer_status,
    hang_up,
    stall,
    table,
)
from tests.fakes.gateways import LocalGateway, backend, endings, infer_body, local_gateway, route
from tests.fakes.models import end_process, start_model_server, wait_until_ready, write_bundle
from tests.fakes.ports import free_port

INFER = "/v2/models/digits/infer"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with local_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture
def servers() -> Iterator[list[FaultyBackend]]:
    """Four that all answer."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultyBackend(answer_class(3))) for _ in range(4)]


async def infer(gateway: LocalGateway, **headers: str) -> httpx.Response:
    return await gateway.http.post(INFER, content=infer_body(), headers=headers)


def seen(servers: list[FaultyBackend]) -> list[int]:
    return [len(server.seen) for server in servers]


def nobody(name: str, weight: int) -> dict[str, Any]:
    """A backend whose connection is refused."""
    return backend(f"{name}@us-east", f"http://127.0.0.1:{free_port()}", weight=weight)


def in_order(*servers: FaultyBackend, far: FaultyBackend | None = None) -> list[dict[str, Any]]:
    """Backends that are asked in this order."""
    local = [
        backend(f"s{n}@us-east", server.url, weight=100 if n == 0 else 0, version=n + 1)
        for n, server in enumerate(servers)
    ]
    return local + ([] if far is None else [backend("far@eu-west", far.url, weight=0, remote=True, region="eu-west")])


@pytest.mark.parametrize("fault", [hang_up, answer_status(500), answer_body(b"rubbish")])
async def test_a_request_that_harms_two_servers_goes_to_no_third_and_to_no_other_region(
    gateway: LocalGateway, servers: list[FaultyBackend], fault: Behaviour
) -> None:
    for server in servers[:2]:
        server.behave(fault)
    await gateway.put(route(*in_order(*servers[:3], far=servers[3])))
    assert (await infer(gateway)).status_code in (502, 503)
    assert seen(servers) == [1, 1, 0, 0]


async def test_a_refused_connection_does_not_count(gateway: LocalGateway, servers: list[FaultyBackend]) -> None:
    servers[0].behave(hang_up)
    local = [backend(f"s{n}@us-east", server.url, weight=0) for n, server in enumerate(servers)]
    await gateway.put(route(nobody("gone", 100), *local))
    assert (await infer(gateway)).headers["x-flightpath-release"] == "s1"
    servers[1].behave(answer_status(500))
    assert (await infer(gateway)).status_code == 502
    assert seen(servers) == [2, 2, 0, 0]


async def test_all_servers_that_refuse_are_passed_over_at_no_cost_to_the_budget(
    tmp_path: Path, servers: list[FaultyBackend]
) -> None:
    async with local_gateway(tmp_path, retries=RetryLimits(minimum=0, share=0.0)) as gateway:
        last = backend("s0@us-east", servers[0].url, weight=0)
        await gateway.put(route(nobody("a", 100), nobody("b", 0), nobody("c", 0), last))
        assert [(await infer(gateway)).status_code for _ in range(5)] == [200] * 5


async def test_no_room_is_tried_on_one_other_server_and_told_with_its_retry_after(
    gateway: LocalGateway, servers: list[FaultyBackend]
) -> None:
    for server in servers[:3]:
        server.behave(answer_status(503, retry_after="17"))
    await gateway.put(route(*in_order(*servers)))
    response = await infer(gateway)
    assert (response.status_code, response.headers["retry-after"]) == (503, "17")
    assert (response.json()["error"]["code"], response.json()["error"]["retryable"]) == ("overloaded", True)
    assert seen(servers) == [1, 1, 0, 0]
    for server in servers[:2]:
        server.behave(answer_status(429))
    assert (await infer(gateway)).status_code == 429
    servers[1].behave(answer_class(3))
    assert [(await infer(gateway)).status_code for _ in range(5)] == [200] * 5
    stats = await gateway.stats("digits")
    assert endings(stats["s0@us-east"]) == {"overloaded": 7}
    assert (stats["s0@us-east"]["ejected"], stats["s0@us-east"]["ejections"]) == (False, 0)


async def test_no_room_for_a_completion_is_told_in_openais_shape(
    gateway: LocalGateway, servers: list[FaultyBackend]
) -> None:
    for server in servers:
        server.behave(answer_status(429, retry_after="3"))
    await gateway.put(route(*in_order(*servers)))
    for stream in (True, False):
        response = await gateway.http.post("/v1/completions", json={"model": "digits", "prompt": "x", "stream": stream})
        assert (response.status_code, response.headers["retry-after"]) == (429, "3")
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_when_the_budget_is_spent_users_get_the_failure_at_once(
    tmp_path: Path, servers: list[FaultyBackend]
) -> None:
    servers[0].behave(answer_status(503))
    async with local_gateway(tmp_path, retries=RetryLimits(minimum=3, share=0.0)) as gateway:
        await gateway.put(route(*in_order(*servers[:2])))
        statuses = [(await infer(gateway)).status_code for _ in range(6)]
    assert statuses == [200] * 3 + [503] * 3
    assert seen(servers) == [6, 3, 0, 0]


async def test_two_servers_are_two_also_across_regions(tmp_path: Path, servers: list[FaultyBackend]) -> None:
    for server in servers:
        server.behave(hang_up)
    async with AsyncExitStack() as stack:
        near, far = [
            await stack.enter_async_context(local_gateway(tmp_path, region=region)) for region in ("us-east", "eu-west")
        ]
        await far.put(route(*in_order(*servers[2:])))
        remote = backend("far@eu-west", far.url, weight=0, remote=True, region="eu-west")
        await near.put(route(backend("a@us-east", servers[0].url, weight=100), remote))
        assert (await infer(near)).status_code == 503
        assert seen(servers) == [1, 0, 1, 0]
        # The other way round: what two servers there have had goes to none here.
        await near.put(route({**remote, "weight": 100}, backend("a@us-east", servers[0].url, weight=0)))
        assert (await infer(near)).status_code == 503
        assert seen(servers) == [1, 0, 2, 1]
        # A region that has no server for it has given it to nobody.
        await far.put(route(nobody("gone", 100)))
        servers[0].behave(answer_class(3))
        assert (await infer(near)).headers["x-flightpath-release"] == "a"


async def test_a_user_who_left_before_the_answer_is_counted(
    gateway: LocalGateway, servers: list[FaultyBackend]
) -> None:
    def slowly(handler: Any) -> None:
        time.sleep(0.5)
        answer_class(3)(handler)

    servers[0].behave(slowly)
    await gateway.put(route(*in_order(servers[0])))
    with pytest.raises(httpx.ReadTimeout):
        await gateway.http.post(INFER, content=infer_body(), timeout=0.1)
    async with asyncio.timeout(10):
        while endings((await gateway.stats("digits"))["s0@us-east"]) != {"abandoned": 1}:
            await asyncio.sleep(0.02)


async def test_a_request_that_takes_longer_than_it_may_is_overdue_while_it_does(
    tmp_path: Path, servers: list[FaultyBackend]
) -> None:
    bounds = Bounds(floor_s=0.1, first_s=60.0, longest_s=60.0)
    # Of the six answers that it has to wait for, none takes longer than the wait.
    lateness = LatenessLimits(completion=bounds, factor=1.0, min_answers=5)
    async with local_gateway(tmp_path, lateness=lateness) as gateway:
        servers[0].behave(stall(15.0))
        await gateway.put(route(*in_order(servers[0], servers[1])))
        slow = asyncio.ensure_future(gateway.http.post("/v1/completions", json={"model": "digits", "prompt": "x"}))
        while not servers[0].seen:
            await asyncio.sleep(0.02)
        assert (await gateway.stats("digits"))["s0@us-east"]["overdue"] == 0
        servers[1].behave(llm.answer())
        await gateway.put(route(*[{**b, "weight": n} for n, b in enumerate(in_order(servers[0], servers[1]))]))
        for _ in range(6):
            assert (await gateway.http.post("/v1/completions", json={"model": "digits", "prompt": "x"})).is_success
        await asyncio.sleep(0.3)
        counters = (await gateway.stats("digits"))["s0@us-east"]
        assert (counters["in_flight"], counters["overdue"]) == (1, 1)
        slow.cancel()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (table(b"[NaN,1,2]", b"[1,3]"), 502),
        (table(b"[Infinity,1,2]", b"[1,3]"), 502),
        (table(b"[-Infinity,-Infinity]", b"[1,2]"), 502),
        (table(b"[1" + b"0" * 400 + b",1]", b"[1,2]"), 502),
        (table(b"[1e999,1]", b"[1,2]"), 502),
        (table(b'["a","b"]', b"[1,2]"), 400),
        (table(b"[true,false]", b"[1,2]"), 400),
        (b'{"outputs":[]}', 502),
        (b"[]", 502),
        (b"", 502),
        (b'{"outputs":[{"shape":null,"data":null}]}', 502),
        (b'{"outputs":[{"shape":[1,2],"data":{"a":1}}]}', 502),
        (table(b"[1,2]", b"[1,3]"), 502),
        (table(b"[1,2,3]", b"[3]"), 400),
        (table(b"[1]", b"[1,1,1,1]"), 400),
        (table(b"[[1,2],[3]]", b"[2,2]"), 502),
        (b"[" * 10_000, 502),
    ],
)
async def test_predict_never_answers_a_bare_500_whatever_a_server_says(
    gateway: LocalGateway, servers: list[FaultyBackend], body: bytes, status: int
) -> None:
    servers[0].behave(answer_body(body))
    await gateway.put(route(*in_order(servers[0])))
    response = await gateway.http.post("/v1/predict", json={"model": "digits", "inputs": [[0.0] * 64]})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "got", "expected", "retryable"}
    expected = {"failed": 1} if status == 502 else {"refused": 1}
    assert endings((await gateway.stats("digits"))["s0@us-east"]) == expected


async def test_a_server_that_cannot_tell_the_models_metadata_is_passed_over(
    tmp_path: Path, servers: list[FaultyBackend]
) -> None:
    write_bundle(tmp_path / "bundle", tmp_path / "keys")
    port = free_port()
    process = start_model_server(tmp_path / "bundle", port=port)
    try:
        await asyncio.to_thread(wait_until_ready, f"http://127.0.0.1:{port}/v2/health/ready", process)
        os.kill(process.pid, signal.SIGSTOP)
        async with local_gateway(tmp_path, upstream=UpstreamLimits(metadata_timeout_s=0.5)) as gateway:
            stopped = backend("stopped@us-east", f"http://127.0.0.1:{port}", weight=100)
            await gateway.put(route(stopped, backend("good@us-east", servers[0].url, weight=1)))
            started = time.monotonic()
            response = await gateway.http.post("/v1/predict", json={"model": "digits", "inputs": [[0.0] * 64]})
            assert (response.status_code, response.json()["release"]) == (200, "good")
            assert time.monotonic() - started < 2.0
    finally:
        end_process(process)


async def timed(gateway: LocalGateway) -> tuple[int, float]:
    """Status and seconds of one request."""
    started = time.monotonic()
    status = (await infer(gateway)).status_code
    return status, time.monotonic() - started


async def test_a_stopped_model_server_makes_nobody_wait_longer_than_the_first_time_out(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "bundle", tmp_path / "keys")
    ports = [free_port(), free_port()]
    processes = [start_model_server(tmp_path / "bundle", port=port) for port in ports]
    try:
        for port, process in zip(ports, processes, strict=True):
            await asyncio.to_thread(wait_until_ready, f"http://127.0.0.1:{port}/v2/health/ready", process)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        await gateway.put(route(*(backend(f"rel-{n}@us-east", url, weight=50) for n, url in enumerate(urls))))
        # On a busy machine the model's own answers are slow, and the bound with them.
        bound_s = max(2.0, 20 * max([(await timed(gateway))[1] for _ in range(60)]))
        os.kill(processes[0].pid, signal.SIGSTOP)
        waves = [asyncio.ensure_future(timed(gateway)) for _ in range(6)]
        together = await asyncio.gather(*waves)
        assert [status for status, _ in together] == [200] * 6
        assert 1.5 < max(seconds for _, seconds in together) < bound_s + 1.5
        # From the first time-out on, users are answered elsewhere; the one that tries the stopped server again does
        # not wait as long.
        later = [await timed(gateway) for _ in range(60)]
        assert [status for status, _ in later] == [200] * 60
        assert sorted(seconds for _, seconds in later)[-3] < 1.0
        assert max(seconds for _, seconds in later) < (1.5 if bound_s == 2.0 else bound_s + 1.5)
        stats = await gateway.stats("digits")
        assert endings(stats["rel-0@us-east"])["late"] >= 1
        assert stats["rel-0@us-east"]["ejections"] >= 1
        os.kill(processes[0].pid, signal.SIGCONT)
        async with asyncio.timeout(20):
            while (await infer(gateway)).headers["x-flightpath-release"] != "rel-0":
                await asyncio.sleep(0.05)
    finally:
        for process in processes:
            end_process(process)


async def test_a_single_stopped_server_is_no_reason_to_wait_longer_and_longer(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "bundle", tmp_path / "keys")
    port = free_port()
    process = start_model_server(tmp_path / "bundle", port=port)
    try:
        url = f"http://127.0.0.1:{port}"
        await asyncio.to_thread(wait_until_ready, f"{url}/v2/health/ready", process)
        await gateway.put(route(backend("only@us-east", url, weight=100)))
        bound_s = max(2.0, 20 * max([(await timed(gateway))[1] for _ in range(30)]))
        os.kill(process.pid, signal.SIGSTOP)
        waited = [await timed(gateway) for _ in range(4)]
        assert [status for status, _ in waited] == [504] * 4
        # Each of the last three would wait longer than the one before; a busy machine may hold up one of them.
        assert min(seconds for _, seconds in waited[1:]) < bound_s + 1.0
    finally:
        end_process(process)


async def test_a_live_server_that_became_slower_than_its_bound_is_waited_for_longer(
    tmp_path: Path, servers: list[FaultyBackend]
) -> None:
    lateness = LatenessLimits(infer=Bounds(floor_s=0.2, first_s=5.0, longest_s=60.0), factor=2.0)
    async with local_gateway(tmp_path, lateness=lateness) as gateway:
        await gateway.put(route(*in_order(servers[0])))
        answered: list[float] = []
        while len(answered) < 30:
            status, seconds = await timed(gateway)
            answered += [seconds] if status == 200 else []
        # Beyond twice what any answer took so far, however busy the machine is.
        slow_s = max(0.6, 3.0 * max(answered))

        def slowly(handler: Any) -> None:
            time.sleep(slow_s)
            answer_class(3)(handler)

        servers[0].behave(slowly)
        statuses: list[int] = []
        while 200 not in statuses[1:] and len(statuses) < 20:
            statuses.append((await infer(gateway)).status_code)
    assert statuses[0] == 504
    assert statuses[-1] == 200
