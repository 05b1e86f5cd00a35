"""The golden set of a language model, put to a server that answers as vLLM does and is broken in one way at a time."""

import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from serving.bundle import GoldenSet, Manifest, describe_file
from serving.errors import CorruptBundle
from serving.regions.deciding.gates import GateResult
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.golden.check import Golden, Replay, check_golden, load_golden

TEXTS = ("def f(x):\n", "return x\n")
POLICY = PromotionPolicy()
_NATS, _TOP = -1.5, 7


def cut(text: str) -> list[int]:
    return [0, *text.encode()]


def make_golden() -> dict[str, Any]:
    texts: list[dict[str, Any]] = []
    for text in TEXTS:
        follow = len(cut(text)) - 1
        texts.append({"text": text, "token_ids": cut(text), "logprob_sum": _NATS * follow, "bytes": len(text)})
        texts[-1] |= {"top": [_TOP] * follow, "margins": [2.0, *[0.1] * (follow - 1)]}
    chats = [{"messages": [{"role": "user", "content": "hi"}], "token_ids": cut("user: hi")}]
    figures = {"perplexity": math.exp(-_NATS), "bits_per_byte": 2.16, "max_perplexity_ratio": 1.1, "min_margin": 0.5}
    return {"schema_version": 1, "texts": texts, "chats": chats, **figures}


def load(folder: Path, content: Any) -> Golden | None:
    (folder / "golden.json").write_text(content if isinstance(content, str) else json.dumps(content))
    file = describe_file(folder, "golden.json")
    golden = GoldenSet(kind="language-model", file=file, samples=2, reference_accuracy=0.3)
    return load_golden(folder, Manifest(name="m", family="llama", inputs=[], outputs=[], variants=[], golden=golden))


class FakeVllm:
    """The three requests of docs/api.md, last section."""

    def __init__(self) -> None:
        self.cut: Callable[[str], list[int]] = cut
        self.template = "user: {}"
        self.nats = _NATS
        self.top = _TOP
        self.status = 200
        self.replayed: list[dict[str, Any]] = []

    async def tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["model"] == "m"
        if "messages" in body and not self.template:
            return web.json_response({"error": {"message": "template"}}, status=400)
        text = self.template.format(body["messages"][0]["content"]) if "messages" in body else body["prompt"]
        return web.json_response({"tokens": self.cut(text)})

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.headers.get("x-flightpath-synthetic"):
            self.replayed.append(body)
            return web.json_response({})
        if self.status != 200:
            return web.json_response({"error": {"message": "out of memory"}}, status=self.status)
        assert (body["max_tokens"], body["temperature"], body["prompt_logprobs"]) == (1, 0, 1)
        entries: list[dict[str, Any] | None] = [None]
        for token in body["prompt"][1:]:
            entry = {str(token): {"logprob": self.nats, "rank": 2, "decoded_token": "x"}}
            entries.append({**entry, str(self.top): {"logprob": -0.1, "rank": 1, "decoded_token": "y"}})
        return web.json_response({"choices": [{"prompt_logprobs": entries}]})


@contextlib.asynccontextmanager
async def serving(fake: FakeVllm) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/tokenize", fake.tokenize)
    app.router.add_post("/v1/completions", fake.complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def check(tmp_path: Path, fake: FakeVllm) -> dict[str, GateResult]:
    async with serving(fake) as url:
        return {gate.gate: gate for gate in await check_golden(load(tmp_path, make_golden()), url, "m", POLICY)}


async def test_a_server_that_says_what_the_reference_says_passes_every_gate(tmp_path: Path) -> None:
    gates = await check(tmp_path, FakeVllm())
    assert {name: gate.status for name, gate in gates.items()} == dict.fromkeys(
        ("tokenizer", "chat template", "golden", "golden agreement"), "passed"
    )
    assert gates["golden"].measured == pytest.approx(math.exp(1.5))
    assert "bits per byte 2.164" in gates["golden"].note
    assert gates["golden agreement"].note == "2 of 2 first choices that lead by 0.5 nats or more"


async def test_another_tokenizer_is_named_and_its_ids_are_not_scored(tmp_path: Path) -> None:
    fake = FakeVllm()
    fake.cut = lambda text: cut(text)[1:]
    gates = await check(tmp_path, fake)
    assert set(gates) == {"tokenizer", "chat template"}
    assert (
        gates["tokenizer"].sentence().startswith("gate tokenizer failed: measured 0, allowed at least 1 share (0 of 2")
    )


@pytest.mark.parametrize("template", ["{}", ""])
async def test_a_broken_chat_template_fails_its_gate_alone(tmp_path: Path, template: str) -> None:
    fake = FakeVllm()
    fake.template = template
    gates = await check(tmp_path, fake)
    assert [name for name, gate in gates.items() if gate.status == "failed"] == ["chat template"]
    assert "the first other one is number 1" in gates["chat template"].note


async def test_damaged_weights_show_in_perplexity_and_first_choices(tmp_path: Path) -> None:
    fake = FakeVllm()
    fake.nats, fake.top = -1.7, 8
    gates = await check(tmp_path, fake)
    assert [name for name, gate in gates.items() if gate.status == "failed"] == ["golden", "golden agreement"]
    assert gates["golden"].sentence().startswith("gate golden failed: measured 5.474, allowed at most 4.93 perplexity")


async def test_a_perplexity_within_the_ratio_passes(tmp_path: Path) -> None:
    fake = FakeVllm()
    fake.nats = -1.55
    assert (await check(tmp_path, fake))["golden"].status == "passed"


async def test_a_server_that_fails_is_no_verdict_on_the_model(tmp_path: Path) -> None:
    fake = FakeVllm()
    fake.status = 500
    gates = await check(tmp_path, fake)
    assert list(gates) == ["server"]
    assert "HTTP 500 of /v1/completions" in gates["server"].note


async def test_golden_texts_are_replayed_as_short_streams(tmp_path: Path) -> None:
    fake = FakeVllm()
    golden = load(tmp_path, make_golden())
    assert golden is not None
    async with serving(fake) as url:
        await Replay(golden, url, "m", credential=lambda: "shown").send(3)
    prompts = [body["prompt"] for body in fake.replayed]
    assert sorted(prompts) == sorted([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert {(body["model"], body["max_tokens"], body["stream"]) for body in fake.replayed} == {("m", 4, True)}


def change(path: str, value: Any) -> dict[str, Any]:
    """The golden set with one value replaced."""
    golden = make_golden()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = golden
    for part in parents:
        place = place[part]
    place[last] = value
    return golden


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("texts", []),
        ("texts", [make_golden()["texts"][0]] * 257),
        ("texts.0.text", "x" * 40_000),
        ("texts.0.token_ids", [0]),
        ("texts.0.token_ids", [0, -1] + [1] * 9),
        ("texts.0.top", [7]),
        ("texts.0.margins", [float("nan")] * 10),
        ("texts.0.logprob_sum", 1.0),
        ("texts.0.bytes", 3),
        ("chats.0.messages", []),
        ("chats.0.messages", "hi"),
        ("chats.0.token_ids", [True]),
        ("perplexity", 1.0),
        ("perplexity", 1e9),
        ("max_perplexity_ratio", 0.5),
        ("min_margin", None),
    ],
)
def test_a_file_that_does_not_hold_is_refused(tmp_path: Path, path: str, value: Any) -> None:
    with pytest.raises(CorruptBundle, match="golden set cannot be read"):
        load(tmp_path, change(path, value))


@pytest.mark.parametrize("content", ["", "[]", "[" * 200_000, '{"schema_version": 1}'])
def test_a_file_that_is_no_golden_set_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(CorruptBundle, match="golden set cannot be read"):
        load(tmp_path, content)


def test_a_file_beyond_the_bound_is_not_even_read(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="golden set is too large"):
        load(tmp_path, " " * (8 * 1024 * 1024 + 1))
