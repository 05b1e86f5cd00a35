"""A packed language model under real vLLM: the golden set holds for the requests that regions send (docs/api.md)."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.language_models import VllmServer
from tests.fakes.language_release import Made, make_language_release
from tests.fakes.ports import free_port

MODEL = "tiny-llama"
_NATS = 1e-3
"""Of a sum over some 60 tokens: float32 sums in another order."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_language_release(tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def vllm(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of `vllm serve`, started with the bundle's own arguments alone."""
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    server = VllmServer(made.folder / "model", MODEL, free_port(), log, made.bundle.arguments)
    try:
        server.wait()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client
    finally:
        server.end()


@pytest.fixture
def ask(vllm: httpx.Client) -> Callable[..., dict[str, Any]]:
    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = vllm.post(path, json={"model": MODEL, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return post


pytestmark = pytest.mark.timeout(300)


def test_texts_and_chats_become_the_golden_token_ids(made: Made, ask: Callable[..., dict[str, Any]]) -> None:
    for text in made.golden["texts"]:
        assert ask("/tokenize", prompt=text["text"])["tokens"] == text["token_ids"]
    for chat in made.golden["chats"]:
        assert ask("/tokenize", messages=chat["messages"])["tokens"] == chat["token_ids"]


def test_log_probabilities_and_clear_first_choices_are_the_references(
    made: Made, ask: Callable[..., dict[str, Any]]
) -> None:
    golden = made.golden
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


def test_a_list_of_texts_is_answered_in_one_request(made: Made, ask: Callable[..., dict[str, Any]]) -> None:
    texts = made.golden["texts"]
    prompts = [text["token_ids"] for text in texts]
    answer = ask("/v1/completions", prompt=prompts, max_tokens=1, temperature=0, prompt_logprobs=1)
    lengths = {choice["index"]: len(choice["prompt_logprobs"]) for choice in answer["choices"]}
    assert lengths == {index: len(ids) for index, ids in enumerate(prompts)}


def test_a_chat_is_answered_and_its_prompt_is_counted(made: Made, ask: Callable[..., dict[str, Any]]) -> None:
    chat = made.golden["chats"][3]
    answer = ask("/v1/chat/completions", messages=chat["messages"], max_tokens=8)
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] == len(chat["token_ids"])
    assert 1 <= answer["usage"]["completion_tokens"] <= 8


def test_a_role_that_the_template_does_not_know_is_the_users_mistake(vllm: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "alien", "content": "x"}], "max_tokens": 1}
    answer = vllm.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "no such role" in answer.text
