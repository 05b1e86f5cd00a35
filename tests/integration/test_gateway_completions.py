"""Language models through the gateway: OpenAI's API, the same routing, and no broken answer that looks whole."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving.gateway.blame import ENDINGS
from serving.gateway.streaming import StreamLimits
from serving.gateway.upstream import UpstreamLimits
from tests.fakes import faulty_llm as llm
from tests.fakes.faulty_backend import Behaviour, FaultyBackend, answer_body, answer_status, break_off, hang_up, stall
from tests.fakes.gateways import LocalGateway, answers_timed, backend, endings, local_gateway, route
from tests.fakes.ports import free_port

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    streams = StreamLimits(first_token_s=1.0, stall_s=0.5, max_event_bytes=20_000)
    async with local_gateway(tmp_path, streams=streams, upstream=UpstreamLimits(completion_timeout_s=1.0)) as gateway:
        yield gateway


@pytest.fixture
def good() -> Iterator[FaultyBackend]:
    with FaultyBackend(llm.stream(*llm.whole("x", "y"))) as server:
        yield server


@pytest.fixture
def bad() -> Iterator[FaultyBackend]:
    with FaultyBackend(llm.stream(*llm.whole("never"))) as server:
        yield server


def llm_route(*backends: dict[str, Any]) -> dict[str, Any]:
    return route(*backends, model="tiny", classes=[])


async def first_bad_then_good(gateway: LocalGateway, bad: FaultyBackend, good: FaultyBackend) -> None:
    await gateway.put(
        llm_route(backend("bad@us-east", bad.url, weight=100), backend("good@us-east", good.url, weight=0))
    )


async def only(gateway: LocalGateway, server: FaultyBackend) -> None:
    await gateway.put(llm_route(backend("only@us-east", server.url, weight=100, version=4)))


async def chat(gateway: LocalGateway, *, stream: bool = True, **more: Any) -> httpx.Response:
    return await gateway.http.post(CHAT, json={"model": "tiny", "messages": MESSAGES, "stream": stream, **more})


async def ended(gateway: LocalGateway, backend_id: str) -> dict[str, int]:
    """How users' attempts ended, and how many are in flight; what is 0 is left out. Each answer has a latency."""
    counters = (await gateway.stats("tiny"))[backend_id]
    found = endings(counters)
    assert answers_timed(counters) == found.get("answered", 0)
    return {**found, **({"in_flight": counters["in_flight"]} if counters["in_flight"] else {})}


async def eventually(gateway: LocalGateway, backend_id: str, expected: dict[str, int]) -> None:
    async with asyncio.timeout(10):
        while await ended(gateway, backend_id) != expected:
            await asyncio.sleep(0.01)


BEFORE_THE_FIRST_TOKEN = [
    pytest.param(answer_status(503), "overloaded", id="overloaded"),
    pytest.param(answer_status(429), "overloaded", id="rate-limited"),
    *(pytest.param(answer_status(s), "failed", id=str(s)) for s in (204, 302, 401, 403, 404, 408, 415, 500, 502)),
    pytest.param(hang_up, "failed", id="hung-up"),
    pytest.param(break_off, "failed", id="broken-off"),
    pytest.param(stall(3), "late", id="hangs"),
]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        *BEFORE_THE_FIRST_TOKEN,
        pytest.param(llm.stream(llm.DONE), "overloaded", id="overloaded-stream"),
        pytest.param(llm.stream(llm.error(503), llm.DONE), "overloaded", id="overloaded-event"),
        pytest.param(llm.stream(llm.token().replace(b'"created":1', b'"created":NaN')), "failed", id="nan"),
        pytest.param(llm.stream(llm.role(), llm.DONE), "failed", id="role-then-done"),
        pytest.param(llm.stream(llm.finish("abort"), llm.DONE), "failed", id="aborted"),
        pytest.param(
            llm.stream(llm.role(), llm.finish("abort"), llm.usage(), llm.DONE), "failed", id="role-then-aborted"
        ),
        pytest.param(llm.stream(llm.role(), llm.error(), llm.DONE), "failed", id="engine-dead"),
        pytest.param(llm.stream(llm.role(), llm.cut), "failed", id="cut"),
        pytest.param(llm.stream(), "failed", id="empty"),
        pytest.param(llm.stream(b"data: nonsense\n\n", llm.DONE), "failed", id="not-json"),
        pytest.param(llm.stream(b"data: " + b"x" * 30_000), "failed", id="endless-event"),
        pytest.param(llm.stream(llm.role(), lambda handler: threading.Event().wait(3)), "late", id="stalls"),
        pytest.param(
            lambda handler: handler.start_stream("application/json") or handler.end_stream(), "failed", id="no-stream"
        ),
    ],
)
async def test_a_stream_that_fails_before_its_first_token_is_answered_by_another_backend(
    gateway: LocalGateway, bad: FaultyBackend, good: FaultyBackend, fault: Behaviour, outcome: str
) -> None:
    bad.behave(fault)
    await first_bad_then_good(gateway, bad, good)
    response = await chat(gateway)
    assert response.status_code == 200
    assert response.headers["x-flightpath-release"] == "good"
    assert llm.texts_of(llm.data_of(response.content)) == ["x", "y"]
    assert llm.data_of(response.content)[-1] == b"[DONE]"
    assert await ended(gateway, "bad@us-east") == {outcome: 1}
    assert await ended(gateway, "good@us-east") == {"answered": 1}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        *BEFORE_THE_FIRST_TOKEN,
        pytest.param(answer_body(b'{"choices": [{"index": NaN, "finish_reason": "stop"}]}'), "failed", id="nan"),
        pytest.param(
            answer_body(b'{"choices": [{"finish_reason": "stop"}]}', content_type="text/html"), "failed", id="html"
        ),
        pytest.param(llm.answer(reason="abort"), "failed", id="aborted"),
        pytest.param(llm.answer(choices=0), "failed", id="no-choices"),
        pytest.param(answer_body(b"not json"), "failed", id="not-json"),
        pytest.param(answer_body(b'{"choices": ['), "failed", id="cut-json"),
    ],
)
async def test_a_whole_answer_that_is_none_is_given_by_another_backend(
    gateway: LocalGateway, bad: FaultyBackend, good: FaultyBackend, fault: Behaviour, outcome: str
) -> None:
    bad.behave(fault)
    good.behave(llm.answer())
    await first_bad_then_good(gateway, bad, good)
    response = await chat(gateway, stream=False)
    assert response.json()["choices"][0]["message"]["content"] == "hello"
    assert response.headers["x-flightpath-release"] == "good"
    assert await ended(gateway, "bad@us-east") == {outcome: 1}
    assert await ended(gateway, "good@us-east") == {"answered": 1}


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        pytest.param((llm.error(), llm.DONE), 502, id="engine-killed"),
        pytest.param((llm.cut,), 502, id="connection-cut"),
        pytest.param((llm.finish("abort"), llm.usage(), llm.DONE), 502, id="aborted"),
        pytest.param((llm.finish("error"), llm.DONE), 502, id="ended-with-an-error"),
        pytest.param((llm.DONE,), 502, id="done-without-a-finish-reason"),
        pytest.param((llm.finish("stop"),), 502, id="no-done"),
        pytest.param((llm.token("b", index=1), llm.finish("stop"), llm.DONE), 502, id="one-of-two-choices-open"),
        pytest.param((b"data: nonsense\n\n", llm.DONE), 502, id="not-json"),
        pytest.param((lambda handler: threading.Event().wait(2),), 504, id="stalls"),
        pytest.param((b": ping\n\n", lambda handler: threading.Event().wait(2)), 504, id="only-comments"),
    ],
)
async def test_a_stream_that_breaks_after_its_first_token_is_no_success(
    gateway: LocalGateway, bad: FaultyBackend, good: FaultyBackend, steps: tuple[llm.Step, ...], status: int
) -> None:
    begun = threading.Event()
    bad.behave(llm.stream(llm.role(), llm.token("begun"), llm.wait(begun), *steps))
    await first_bad_then_good(gateway, bad, good)
    request = {"model": "tiny", "messages": MESSAGES, "stream": True}
    async with gateway.http.stream("POST", CHAT, json=request) as response:
        reads = response.aiter_raw()
        received = await anext(reads)
        begun.set()
        received += b"".join([chunk async for chunk in reads])
    events = llm.data_of(received)
    assert response.headers["x-flightpath-release"] == "bad"
    assert llm.texts_of(event for event in events[:-1] if not event.startswith(b":"))[0] == "begun"
    error = json.loads(events[-1])["error"]
    assert (error["type"], error["param"], error["retryable"]) == ("server_error", None, True)
    assert b"[DONE]" not in received
    assert good.seen == []
    assert await ended(gateway, "bad@us-east") == {"late" if status == 504 else "failed": 1}
    counted = f'flightpath_gateway_requests_total{{code="{status}",model="tiny",version="1"}}'
    assert await gateway.metric(counted) == 1


async def test_openais_client_raises_when_a_stream_breaks_off(gateway: LocalGateway, bad: FaultyBackend) -> None:
    begun = threading.Event()
    bad.behave(llm.stream(llm.role(), llm.token("begun"), llm.wait(begun), llm.error(), llm.DONE))
    await only(gateway, bad)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        chunks = aiter(await client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True))  # type: ignore[arg-type]
        said = [(await anext(chunks)).choices[0].delta.content for _ in range(2)]
        begun.set()
        with pytest.raises(openai.APIError, match="EngineCore encountered an issue"):
            await anext(chunks)
    assert said == ["", "begun"]


@pytest.mark.parametrize("reason", sorted(ENDINGS))
async def test_an_ending_that_means_an_end_is_believed(gateway: LocalGateway, good: FaultyBackend, reason: str) -> None:
    good.behave(llm.stream(llm.role(), llm.finish(reason), llm.DONE))
    await only(gateway, good)
    assert llm.data_of((await chat(gateway)).content)[-1] == b"[DONE]"
    assert await ended(gateway, "only@us-east") == {"answered": 1}
    good.behave(llm.answer(reason=reason))
    assert (await chat(gateway, stream=False)).status_code == 200
    assert await ended(gateway, "only@us-east") == {"answered": 2}


async def test_each_event_goes_on_before_the_next_one_exists(gateway: LocalGateway, good: FaultyBackend) -> None:
    gates = [threading.Event() for _ in range(3)]
    steps = [step for n, gate in enumerate(gates) for step in (llm.token(f"t{n}"), llm.wait(gate))]
    good.behave(llm.stream(llm.role(), *steps, llm.finish(), llm.DONE))
    await only(gateway, good)
    request = {"model": "tiny", "messages": MESSAGES, "stream": True}
    async with gateway.http.stream("POST", CHAT, json=request) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        received, reads = b"", response.aiter_raw()
        for n, gate in enumerate(gates):
            while f'"t{n}"'.encode() not in received:
                received += await anext(reads)
            assert f'"t{n + 1}"'.encode() not in received
            assert await ended(gateway, "only@us-east") == {"in_flight": 1}
            gate.set()
        received += b"".join([chunk async for chunk in reads])
    assert llm.texts_of(llm.data_of(received)) == ["t0", "t1", "t2"]
    assert await ended(gateway, "only@us-east") == {"answered": 1}


async def test_a_client_that_leaves_after_a_token_ends_its_request_and_has_an_answer(
    gateway: LocalGateway, good: FaultyBackend
) -> None:
    left = threading.Event()
    good.behave(llm.stream(llm.role(), llm.token(), llm.until_client_leaves(left)))
    await only(gateway, good)
    request = {"model": "tiny", "messages": MESSAGES, "stream": True}
    async with gateway.http.stream("POST", CHAT, json=request) as response:
        await anext(response.aiter_raw())
    assert await asyncio.to_thread(left.wait, 10)
    await eventually(gateway, "only@us-east", {"answered": 1})
    assert await gateway.metric('flightpath_gateway_requests_total{code="499",model="tiny",version="4"}') == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_first_token_ends_its_request_and_is_counted(
    gateway: LocalGateway, good: FaultyBackend, stream: bool
) -> None:
    left, entered = threading.Event(), threading.Event()

    def behave(handler: Any) -> None:
        entered.set()
        llm.until_client_leaves(left)(handler)  # type: ignore[operator]

    good.behave(behave)
    await only(gateway, good)
    asking = asyncio.ensure_future(chat(gateway, stream=stream))
    assert await asyncio.to_thread(entered.wait, 10)
    asking.cancel()
    assert await asyncio.to_thread(left.wait, 10)
    await eventually(gateway, "only@us-east", {"abandoned": 1})
    assert (await gateway.stats("tiny"))["only@us-east"]["ejected"] is False


async def test_a_client_that_does_not_read_slows_the_model_server_down_and_is_dropped(
    gateway: LocalGateway, good: FaultyBackend
) -> None:
    sent = []

    def flood(handler: Any) -> None:
        for _ in range(4000):
            handler.send_chunk(llm.token("x" * 10_000))
            sent.append(10_000)

    good.behave(llm.stream(llm.role(), flood, llm.finish(), llm.DONE))
    await only(gateway, good)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]), limit=1024)
    body = json.dumps({"model": "tiny", "messages": MESSAGES, "stream": True}).encode()
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readline()
    await eventually(gateway, "only@us-east", {"answered": 1})
    assert sum(sent) < 20_000_000
    writer.close()


async def test_the_usage_is_counted_and_only_shown_to_those_who_asked(
    gateway: LocalGateway, good: FaultyBackend
) -> None:
    await only(gateway, good)
    silent = await chat(gateway)
    assert b"usage" not in silent.content
    assert json.loads(good.seen[-1][1])["stream_options"] == {"include_usage": True}
    told = await chat(gateway, stream_options={"include_usage": True})
    assert json.loads(llm.data_of(told.content)[-2])["usage"] == llm.USAGE
    good.behave(llm.answer())
    assert (await chat(gateway, stream=False)).json()["usage"] == llm.USAGE
    for direction, each in (("in", 21), ("out", 4)):
        line = f'flightpath_gateway_tokens_total{{direction="{direction}",model="tiny",version="4"}}'
        assert await gateway.metric(line) == 3 * each
    assert await gateway.metric("flightpath_gateway_time_between_tokens_seconds_count") == 4
    assert await gateway.metric("flightpath_gateway_time_to_first_token_seconds_count") == 2


async def test_a_body_goes_on_byte_for_byte(gateway: LocalGateway, good: FaultyBackend) -> None:
    await only(gateway, good)
    body = b'{ "messages":[],"seed": 18446744073709551616, "model" : "tiny", "x": 1e-7'
    body += b', "stream_options": {"include_usage": true}'
    asked = body + b', "stream":true}'
    await gateway.http.post(CHAT, content=asked)
    assert good.seen[-1][1] == asked
    good.behave(llm.answer())
    await gateway.http.post("/v1/completions", content=body + b"}")
    assert good.seen[-1][1] == body + b"}"
    assert good.paths == [CHAT, "/v1/completions"]


async def test_a_refusal_is_the_users_and_no_error_of_the_backend(gateway: LocalGateway, bad: FaultyBackend) -> None:
    await only(gateway, bad)
    for status in (400, 413, 422):
        for behaviour in (answer_status(status), llm.stream(llm.error(status), llm.DONE)):
            bad.behave(behaviour)
            response = await chat(gateway)
            assert response.status_code == status
            assert "error" in response.json()
            assert response.headers["x-flightpath-release"] == "only"
    assert await ended(gateway, "only@us-east") == {"refused": 6}
    assert (await gateway.stats("tiny"))["only@us-east"]["ejected"] is False


async def test_a_key_spelled_with_escapes_does_not_evade_the_usage(gateway: LocalGateway, good: FaultyBackend) -> None:
    await only(gateway, good)
    escaped = b'{"model":"tiny","stream":true,"messages":[],"stream_\\u006fptions":null}'
    response = await gateway.http.post(CHAT, content=escaped)
    assert json.loads(good.seen[-1][1])["stream_options"] == {"include_usage": True}
    assert b"usage" not in response.content
    assert await gateway.metric('flightpath_gateway_tokens_total{direction="out",model="tiny",version="4"}') == 4


async def test_a_slow_first_token_is_waited_for_at_two_servers_at_most(gateway: LocalGateway) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(FaultyBackend(stall(3))) for _ in range(3)]
        await gateway.put(
            llm_route(*(backend(f"rel-{n}@us-east", server.url, weight=30) for n, server in enumerate(servers)))
        )
        response = await chat(gateway)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timed_out")
        assert sum(len(server.seen) for server in servers) == 2


async def test_errors_have_openais_shape_and_our_fields(gateway: LocalGateway) -> None:
    await gateway.put(llm_route(backend("gone@us-east", f"http://127.0.0.1:{free_port()}", weight=100)))
    cases = [
        (await gateway.http.post(CHAT, json={"model": "other", "messages": []}), 404, "not_found"),
        (await gateway.http.post(CHAT, content=b"{"), 400, "invalid_input"),
        (await gateway.http.post(CHAT, json={"messages": []}), 400, "invalid_input"),
        (await gateway.http.post(CHAT, json={"model": "tiny", "stream": "yes"}), 400, "invalid_input"),
        (await gateway.http.get("/v1/completions"), 404, "not_found"),
        (await chat(gateway), 503, "unavailable"),
        (await chat(gateway, stream=False), 503, "unavailable"),
    ]
    for response, status, code in cases:
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code", "got", "expected", "retryable"}
        assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
        assert response.headers["x-request-id"]


async def test_models_are_openai_model_objects(gateway: LocalGateway, good: FaultyBackend) -> None:
    await only(gateway, good)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        (model,) = (await client.models.list()).data
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "flightpath")
    assert model.created > 1_700_000_000


async def test_a_region_without_the_model_routes_streams_to_one_that_has_it(
    gateway: LocalGateway, good: FaultyBackend, tmp_path: Path
) -> None:
    async with local_gateway(tmp_path / "far", region="eu-west") as far:
        await far.put(llm_route(backend("rel-9@eu-west", good.url, weight=100, version=9, region="eu-west")))
        await gateway.put(llm_route(backend("rel-1@eu-west", far.url, weight=100, remote=True, region="eu-west")))
        for stream in (True, False):
            good.behave(llm.stream(*llm.whole("x")) if stream else llm.answer())
            response = await chat(gateway, stream=stream)
            assert response.status_code == 200
            named = {name: response.headers[f"x-flightpath-{name}"] for name in ("region", "version", "release")}
            assert named == {"region": "eu-west", "version": "9", "release": "rel-9"}
        begun = threading.Event()
        good.behave(llm.stream(llm.role(), llm.token("begun"), llm.wait(begun), llm.cut))
        request = {"model": "tiny", "messages": MESSAGES, "stream": True}
        async with gateway.http.stream("POST", CHAT, json=request) as broken:
            reads = broken.aiter_raw()
            received = await anext(reads)
            begun.set()
            received += b"".join([chunk async for chunk in reads])
        assert b"[DONE]" not in received
        assert "error" in json.loads(llm.data_of(received)[-1])
        assert await ended(gateway, "rel-1@eu-west") == {"failed": 1, "answered": 2}
        told = {"x-flightpath-hop": "1", **gateway.peer}
        hop = await gateway.http.post(CHAT, json={"model": "tiny"}, headers=told)
        assert (hop.status_code, hop.headers["x-flightpath-tried"]) == (503, "0")


async def test_a_draining_gateway_lets_its_streams_end(gateway: LocalGateway, good: FaultyBackend) -> None:
    gate = threading.Event()
    good.behave(llm.stream(llm.token("before"), llm.wait(gate), llm.token("after"), llm.finish(), llm.DONE))
    await only(gateway, good)
    request = {"model": "tiny", "messages": MESSAGES, "stream": True}
    async with gateway.http.stream("POST", CHAT, json=request) as response:
        reads = response.aiter_raw()
        received = await anext(reads)
        draining = asyncio.ensure_future(gateway.server.drain())
        await asyncio.sleep(0)
        gate.set()
        received += b"".join([chunk async for chunk in reads])
    assert llm.texts_of(llm.data_of(received)) == ["before", "after"]
    assert await draining


async def test_a_head_beyond_its_bound_is_431(gateway: LocalGateway) -> None:
    for headers in ({"x-much": "x" * 70_000}, {f"x-{n}": "y" * 1000 for n in range(70)}):
        response = await gateway.http.post(CHAT, json={"model": "tiny"}, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (431, "too_large")
    assert (await gateway.http.get("/healthz", headers={"x-much": "x" * 30_000})).status_code == 200


async def test_a_head_without_end_is_431(gateway: LocalGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\nx-endless: ")
    for _ in range(80):
        writer.write(b"x" * 1000)
        await writer.drain()
    assert (await reader.readline()).startswith(b"HTTP/1.1 431")
    writer.close()
