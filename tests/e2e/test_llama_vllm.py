"""A packed language model under real vLLM: the golden set holds for the requests that regions send (docs/api.md)."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from serving.credentials import SigningKey
from serving.store import ArtifactStore
from tasks.artifacts import ReleasePlan
from tasks.compression.bundling import build_bundle
from tasks.compression.compress import compress
from tasks.data.module import prepare
from tasks.evaluation.accuracy import evaluate
from tasks.training.entry import train
from tasks.training.launch import inprocess
from tasks.training.recipes import get_recipe
from tests.fakes.ports import free_port
from tests.fakes.tiny_language import REFERENCE

MODEL = "tiny-llama"
_READY_S = 200
_NATS = 1e-3
"""Of a sum over some 60 tokens: float32 sums in another order."""


@dataclass(frozen=True, kw_only=True)
class Sealed:
    folder: Path
    arguments: list[str]

    @property
    def golden(self) -> dict[str, Any]:
        golden: dict[str, Any] = json.loads((self.folder / "golden.json").read_bytes())
        return golden


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """The tiny language model's bundle, as a region fetches it."""
    root = tmp_path_factory.mktemp("vllm")
    recipe, store = get_recipe(REFERENCE), ArtifactStore((root / "store").as_uri())
    dataset = prepare(recipe, 1, store)
    checkpoint = train(
        recipe, dataset, seed=1, workers=1, store=store, run_folder=root / "run", launch=inprocess.launch
    )
    evaluation = evaluate(recipe, dataset, checkpoint, store)
    compressed = compress(recipe, dataset, checkpoint, evaluation, store)
    plan = ReleasePlan(
        release_id="r-1",
        recipe=REFERENCE,
        seed=1,
        store_uri=store.uri,
        regions=["us-east"],
        code_version="c",
        data_hash="d",
    )
    bundle = build_bundle(recipe, plan, compressed, evaluation, store, SigningKey.ensure(root / "keys"), {})
    return Sealed(folder=store.fetch_bundle(bundle.digest, root / "bundle"), arguments=bundle.arguments)


@pytest.fixture(scope="module")
def vllm(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of `vllm serve`, started with the bundle's own arguments."""
    port, log = free_port(), tmp_path_factory.mktemp("log") / "vllm.log"
    command = [
        *(str(Path(sys.executable).with_name("vllm")), "serve", str(sealed.folder / "model")),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL, *sealed.arguments),
    ]
    quiet = ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", **dict.fromkeys(quiet, "1")}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            _wait_until_ready(client, server, log)
            yield client
        finally:
            _end(server)


def _wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health").status_code == 200:
                return
        time.sleep(0.3)
    pytest.fail(f"vLLM did not become ready: {log.read_text(errors='replace')[-3000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """vLLM's engine is a process of its own: take the children along."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        server.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()


@pytest.fixture
def ask(vllm: httpx.Client) -> Callable[..., dict[str, Any]]:
    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = vllm.post(path, json={"model": MODEL, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return post


pytestmark = pytest.mark.timeout(300)


def test_texts_and_chats_become_the_golden_token_ids(sealed: Sealed, ask: Callable[..., dict[str, Any]]) -> None:
    for text in sealed.golden["texts"]:
        assert ask("/tokenize", prompt=text["text"])["tokens"] == text["token_ids"]
    for chat in sealed.golden["chats"]:
        assert ask("/tokenize", messages=chat["messages"])["tokens"] == chat["token_ids"]


def test_log_probabilities_and_clear_first_choices_are_the_references(
    sealed: Sealed, ask: Callable[..., dict[str, Any]]
) -> None:
    golden = sealed.golden
    clear = 0
    for text in golden["texts"]:
        ids = text["token_ids"]
        answer = ask("/v1/completions", prompt=ids, max_tokens=1, temperature=0, prompt_logprobs=1)
        first, *positions = answer["choices"][0]["prompt_logprobs"]
        assert first is None
        assert len(positions) == len(ids) - 1
        found = sum(position[str(token)]["logprob"] for position, token in zip(positions, ids[1:], strict=True))
        assert found == pytest.approx(text["logprob_sum"], abs=_NATS)
        for position, top, margin in zip(positions, text["top"], text["margins"], strict=True):
            if margin >= golden["min_margin"]:
                clear += 1
                assert position[str(top)]["rank"] == 1
    assert clear > 0


def test_a_list_of_texts_is_answered_in_one_request(sealed: Sealed, ask: Callable[..., dict[str, Any]]) -> None:
    texts = sealed.golden["texts"]
    prompts = [text["token_ids"] for text in texts]
    answer = ask("/v1/completions", prompt=prompts, max_tokens=1, temperature=0, prompt_logprobs=1)
    lengths = {choice["index"]: len(choice["prompt_logprobs"]) for choice in answer["choices"]}
    assert lengths == {index: len(ids) for index, ids in enumerate(prompts)}


def test_a_chat_is_answered_and_its_prompt_is_counted(sealed: Sealed, ask: Callable[..., dict[str, Any]]) -> None:
    chat = sealed.golden["chats"][3]
    answer = ask("/v1/chat/completions", messages=chat["messages"], max_tokens=8)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] == len(chat["token_ids"])
    assert 1 <= answer["usage"]["completion_tokens"] <= 8


def test_a_role_that_the_template_does_not_know_is_the_users_mistake(vllm: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "alien", "content": "x"}], "max_tokens": 1}
    answer = vllm.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "no such role" in answer.text
