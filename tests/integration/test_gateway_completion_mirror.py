"""Completions are repeated on both versions without randomness, and the pairs of texts wait for the agent."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.completion_mirror import CompletionMirrorLimits, PairStore, greedy_request
from tests.fakes import faulty_llm as llm
from tests.fakes.faulty_backend import FaultyBackend, answer_status
from tests.fakes.gateways import LocalGateway, backend, endings, local_gateway, mirror, route

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with local_gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture
def pair() -> Iterator[tuple[FaultyBackend, FaultyBackend]]:
    """The live server and the candidate."""
    with ExitStack() as stack:
        live = stack.enter_context(FaultyBackend(llm.answer(text="old words")))
        candidate = stack.enter_context(FaultyBackend(llm.answer(text="new words")))
        yield live, candidate


async def put(gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend], share: float, candidate: int) -> None:
    await gateway.put(
        route(
            backend("old@us-east", pair[0].url, weight=100 - candidate),
            backend("new@us-east", pair[1].url, weight=candidate, version=2),
            mirror=mirror("new@us-east", "old@us-east", completions_share=share),
            model="tiny",
            classes=[],
        )
    )


async def ask(gateway: LocalGateway, path: str = CHAT, headers: dict[str, str] | None = None, **more: Any) -> None:
    question = {"messages": MESSAGES} if path == CHAT else {"prompt": "once"}
    document = {"model": "tiny", **question, **more}
    (await gateway.http.post(path, json=document, headers=headers)).raise_for_status()


async def pairs(gateway: LocalGateway, count: int, *, after: int = 0) -> list[dict[str, Any]]:
    """The pairs, once there are so many."""
    async with asyncio.timeout(10):
        while len(found := (await gateway.pairs("tiny", after=after))["pairs"]) < count:
            await asyncio.sleep(0.02)
    listed: list[dict[str, Any]] = found
    return listed


@pytest.mark.parametrize("candidate", [0, 100])
async def test_whichever_version_answered_both_are_asked_anew(
    gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend], candidate: int
) -> None:
    await put(gateway, pair, 1.0, candidate)
    await ask(gateway, max_tokens=500, temperature=0.9, top_p=0.5, seed=7)
    (found,) = await pairs(gateway, 1)
    request = {"model": "tiny", "messages": MESSAGES, "seed": 7, "max_tokens": 64}
    assert found["request"] == {**request, "temperature": 0, "n": 1, "stream": False}
    assert (found["path"], found["candidate"], found["live"]) == (CHAT, "new words", "old words")
    for server in pair:
        assert json.loads(server.seen[-1][1]) == found["request"]
    answered = [endings((await gateway.stats("tiny"))[name]) for name in ("old@us-east", "new@us-east")]
    assert answered == ([{"answered": 1}, {}] if candidate == 0 else [{}, {"answered": 1}])


async def test_streams_are_repeated_when_they_have_ended_well(
    gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend]
) -> None:
    def either(text: str) -> Any:
        return lambda handler: (
            llm.stream(*llm.whole("x"))(handler)
            if b'"stream":true' in handler.server.seen[-1][1].replace(b" ", b"")
            else llm.answer(text=text)(handler)
        )

    for server, text in zip(pair, ("old", "new"), strict=True):
        server.behave(either(text))
    await put(gateway, pair, 1.0, 50)
    await ask(gateway, path="/v1/completions", stream=True)
    (found,) = await pairs(gateway, 1)
    assert (found["path"], found["request"]["prompt"], found["live"]) == ("/v1/completions", "once", "old")


async def test_nothing_is_repeated_unless_a_share_is_named_nor_what_an_agent_asks(
    gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend]
) -> None:
    await put(gateway, pair, 0.0, 100)
    await ask(gateway)
    await put(gateway, pair, 1.0, 100)
    await ask(gateway, headers={"x-flightpath-synthetic": "1", **gateway.peer})
    await ask(gateway, tools=[{"type": "function", "function": {"name": "f"}}])
    await ask(gateway, n=1)
    await pairs(gateway, 1)
    assert len(pair[0].seen) == 1


async def test_a_repeat_that_fails_is_no_pair_and_nobodys_ending(
    gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend]
) -> None:
    await put(gateway, pair, 1.0, 0)
    for fault in (answer_status(500), answer_status(400), llm.answer(reason="abort"), llm.answer(choices=2)):
        pair[1].behave(fault)
        await ask(gateway)
    line = 'flightpath_gateway_mirrored_total{model="tiny",result="failed"}'
    async with asyncio.timeout(10):
        while await gateway.metric(line) < 4:
            await asyncio.sleep(0.02)
    assert (await gateway.pairs("tiny"))["pairs"] == []
    assert endings((await gateway.stats("tiny"))["new@us-east"]) == {}


async def test_pairs_are_forgotten_when_the_agent_has_them(
    gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend]
) -> None:
    await put(gateway, pair, 1.0, 0)
    for _ in range(3):
        await ask(gateway)
    first, second, third = await pairs(gateway, 3)
    document = await gateway.pairs("tiny", after=second["seq"])
    assert (document["pairs"], document["dropped"]) == ([third], 0)
    assert document["boot_id"] == (await gateway.http.get("/v1/status")).json()["boot_id"]
    assert first["seq"] < second["seq"] < third["seq"]
    assert (await gateway.pairs("tiny"))["pairs"] == [third]


async def test_pairs_are_the_agents_alone(gateway: LocalGateway, pair: tuple[FaultyBackend, FaultyBackend]) -> None:
    await put(gateway, pair, 1.0, 0)
    assert (await gateway.http.get("/admin/v1/pairs/tiny")).status_code == 401
    for after in ("-1", "x", "\u0663", "9" * 40):
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            await gateway.pairs("tiny", after=after)  # type: ignore[arg-type]
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await gateway.pairs("other")


def test_pairs_are_bounded_in_number_and_bytes() -> None:
    store = PairStore(CompletionMirrorLimits(max_pairs=10, max_pairs_bytes=5_000))
    for index in range(25):
        store.put("m", "/v1/completions", {"prompt": index}, "a", "b")
    found = store.read("m", after=0)
    assert ([pair["seq"] for pair in found["pairs"]], found["dropped"]) == (list(range(16, 26)), 15)
    store.put("m", "/v1/completions", {"prompt": "x" * 4_500}, "a", "b")
    assert [pair["seq"] for pair in store.read("m", after=0)["pairs"]][-1] == 26
    assert len(store.read("m", after=0)["pairs"]) <= 5
    store.put("m", "/v1/completions", {"prompt": "x" * 6_000}, "a", "b")
    assert store.read("m", after=0)["pairs"] == []
    assert store.read("other", after=0) == {"pairs": [], "dropped": 0}


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [{}]},
        {"functions": [{}]},
        {"response_format": {"type": "json_object"}},
        {"guided_json": "{}"},
        {"structured_outputs": {"json": {}}},
        {"prompt": ["a", "b"]},
        {"prompt": [[1, 2], [3]]},
    ],
)
def test_what_is_bound_to_a_form_or_asks_for_several_is_not_repeated(asked: dict[str, Any]) -> None:
    assert greedy_request(json.dumps({"model": "m", **asked}).encode(), max_tokens=64) is None


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ({}, 64),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 0}, 64),
        ({"max_tokens": None}, 64),
    ],
)
def test_a_repeat_is_brief(asked: dict[str, Any], tokens: int) -> None:
    request = greedy_request(json.dumps({"model": "m", "prompt": [1, 2, 3], "n": 4, **asked}).encode(), max_tokens=64)
    assert request is not None
    assert (request["max_tokens"], request["n"], request["prompt"]) == (tokens, 1, [1, 2, 3])
    assert "max_completion_tokens" not in request
