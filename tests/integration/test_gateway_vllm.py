"""The gateway in front of real vLLM: tokens arrive one by one, and a dead engine is never a success.

One server for the whole file. The last tests kill its engine, so the order of the tests matters.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fakes import faulty_llm as llm
from tests.fakes.faulty_backend import FaultyBackend
from tests.fakes.gateways import GatewayClient, GatewayProcess, answers_timed, backend, endings, route, wait_for
from tests.fakes.language_models import VllmServer, write_llama
from tests.fakes.ports import free_port

MODEL = "tiny"
CHAT = "/v1/chat/completions"
CONTEXT_TOKENS = 131_072
ENDLESS_TOKENS = 120_000
"""Minutes of an answer, a millisecond or more a token: it cannot end while the test gets round to the kill."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    root = tmp_path_factory.mktemp("vllm")
    write_llama(root / "model", context_tokens=CONTEXT_TOKENS)
    server = VllmServer(root / "model", MODEL, free_port(), root / "vllm.log")
    try:
        server.wait()
        # The first request loads the chat template while the engine generates, and its tokens come at once.
        httpx.post(f"{server.url}{CHAT}", json=ask(5), timeout=60, trust_env=False).raise_for_status()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, vllm: VllmServer) -> Iterator[GatewayProcess]:
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"))
    try:
        process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def client(gateway: GatewayProcess, vllm: VllmServer) -> Iterator[GatewayClient]:
    with GatewayClient(gateway) as client:
        put(client, backend("live@us-east", vllm.url, weight=100, version=3))
        yield client


def put(client: GatewayClient, *backends: dict[str, Any]) -> None:
    client.put(route(*backends, model=MODEL, classes=[])).raise_for_status()


def ask(tokens: int, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "hi"}
    return {"model": MODEL, "messages": [message], "max_tokens": tokens, "ignore_eos": True, **more}


def test_a_streamed_chat_arrives_token_by_token(client: GatewayClient, gateway: GatewayProcess) -> None:
    request = ask(4000, stream=True, stream_options={"include_usage": True})
    with GatewayClient(gateway) as agent, client.http.stream("POST", CHAT, json=request) as response:
        reads = response.iter_raw()
        begun = [next(reads) for _ in range(3)]
        in_flight = agent.stats(MODEL)["live@us-east"]["in_flight"]
        rest = list(reads)
    events = llm.data_of(b"".join([*begun, *rest]))
    assert (response.status_code, response.headers["x-flightpath-version"]) == (200, "3")
    assert b"[DONE]" not in b"".join(begun)
    # The role, then the tokens in their order (a server that falls behind puts several into one event), the usage
    # that was asked for, and the mark of the end.
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len(chunks) >= 50
    endings = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert endings == [None] * (len(endings) - 1) + ["length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 4000
    assert events[-1] == b"[DONE]"
    assert in_flight == 1
    assert client.stats(MODEL)["live@us-east"]["in_flight"] == 0


def test_a_streamed_chat_says_what_the_whole_answer_says(client: GatewayClient) -> None:
    streamed = client.http.post(CHAT, json=ask(40, stream=True, temperature=0))
    whole = client.http.post(CHAT, json=ask(40, temperature=0)).json()
    said = "".join(llm.texts_of(llm.data_of(streamed.content)))
    assert said == whole["choices"][0]["message"]["content"]
    assert whole["usage"]["completion_tokens"] == 40


def test_tokens_are_counted_from_what_vllm_reports(client: GatewayClient) -> None:
    def counted() -> float:
        line = f'flightpath_gateway_tokens_total{{direction="out",model="{MODEL}",version="3"}} '
        text = client.http.get("/metrics").text
        return sum(float(row.removeprefix(line)) for row in text.splitlines() if row.startswith(line))

    before = counted()
    client.http.post(CHAT, json=ask(7, stream=True))
    client.http.post("/v1/completions", json={"model": MODEL, "prompt": "a", "max_tokens": 5, "ignore_eos": True})
    assert counted() - before == 12


def test_openais_client_streams_both_apis(client: GatewayClient, gateway: GatewayProcess) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as user:
        chat = user.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=20, stream=True,
            stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
        )  # fmt: skip
        chunks = list(chat)
        completion = user.completions.create(
            model=MODEL, prompt="a", max_tokens=20, n=2, stream=True, extra_body={"ignore_eos": True}
        )
        endings = [choice.finish_reason for chunk in completion for choice in chunk.choices if choice.finish_reason]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices][-1] == "length"
    assert endings == ["length", "length"]


def test_a_request_that_vllm_refuses_is_the_users(client: GatewayClient) -> None:
    before = endings(client.stats(MODEL)["live@us-east"]).get("refused", 0)
    for stream in (True, False):
        response = client.http.post(CHAT, json=ask(1_000_000, stream=stream))
        assert response.status_code == 400
        assert "max_tokens" in response.json()["error"]["message"]
    after = endings(client.stats(MODEL)["live@us-east"])
    assert (after["refused"] - before, after.get("failed", 0)) == (2, 0)


def test_a_dead_backend_is_passed_over_before_the_first_byte(client: GatewayClient, vllm: VllmServer) -> None:
    dead = backend("dead@us-east", f"http://127.0.0.1:{free_port()}", weight=100)
    put(client, dead, backend("live@us-east", vllm.url, weight=0))
    response = client.http.post(CHAT, json=ask(5, stream=True))
    assert response.headers["x-flightpath-release"] == "live"
    assert llm.data_of(response.content)[-1] == b"[DONE]"
    assert endings(client.stats(MODEL)["dead@us-east"]) == {"failed": 1}


def test_an_engine_killed_in_mid_stream_is_an_error_for_the_client(
    client: GatewayClient, gateway: GatewayProcess, vllm: VllmServer
) -> None:
    before = client.stats(MODEL)["live@us-east"]
    # A first token may come late on a busy machine, which is a 504; a stream that has begun is never asked for again.
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=5) as user:
        (engine,) = vllm.engines()
        request: dict[str, Any] = ask(ENDLESS_TOKENS, stream=True)
        extra = {"ignore_eos": request.pop("ignore_eos")}
        chunks = iter(user.chat.completions.create(**request, extra_body=extra))
        received = [next(chunks) for _ in range(5)]
        wait_for(lambda: vllm.requests_running() == 1)
        engine.kill()
        broke_off: Exception | None = None
        try:
            received.extend(chunks)
        except (openai.APIError, httpx.RemoteProtocolError) as error:
            broke_off = error
    after = client.stats(MODEL)["live@us-east"]
    finished = [choice.finish_reason for chunk in received for choice in chunk.choices if choice.finish_reason]
    assert finished == []
    assert broke_off is not None, f"{len(received)} chunks, then an end like any other; the last: {received[-1]}"
    assert after["users"]["failed"] - before["users"]["failed"] == 1
    assert answers_timed(after) == answers_timed(before)


def test_after_that_another_backend_answers(client: GatewayClient, vllm: VllmServer) -> None:
    with FaultyBackend(llm.stream(*llm.whole("rescued"))) as other:
        put(client, backend("live@us-east", vllm.url, weight=100), backend("other@us-east", other.url, weight=0))
        response = client.http.post(CHAT, json=ask(5, stream=True))
    assert response.headers["x-flightpath-release"] == "other"
    assert llm.texts_of(llm.data_of(response.content)) == ["rescued"]
