"""A language model's golden set: what the FP32 reference makes of fixed texts and chats (docs/api.md, last section).

Token ids, log-probabilities of given texts and clear first choices are compared, never generated text:
that differs from one kernel to the next for no fault of the model's.
"""

import asyncio
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import aiohttp

from serving.errors import BadUpstream, CorruptBundle
from serving.regions.deciding.gates import GateResult, failures, judge_equal_ids, judge_first_choices, judge_perplexity
from serving.regions.deciding.policy import PromotionPolicy

LANGUAGE_MODEL: Final = "language-model"
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
_MAX_TEXTS: Final = 256
_MAX_CHATS: Final = 64
_MAX_MESSAGES: Final = 32
_MAX_CHARACTERS: Final = 32_768
_MAX_TOKENS: Final = 4_096
"""Of one text: vLLM computes log-probabilities of a prompt at once, the vocabulary's width for each token."""
_MAX_NATS: Final = 700.0
"""Per token, on average; e to this is about the largest number a float holds."""
_SUM_TOLERANCE: Final = 0.01
_TOKENIZE: Final = "/tokenize"
_CONCURRENCY: Final = 2
_REPLAY_CHARACTERS: Final = 64
_REPLAY_TOKENS: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenText:
    text: str
    token_ids: tuple[int, ...]
    logprob_sum: float
    """Of the reference over `token_ids[1:]`, nats."""
    bytes: int
    top: tuple[int, ...]
    """`top[i]` is what the reference ranks first after `token_ids[:i + 1]`."""
    margins: tuple[float, ...]
    """How far that is ahead of the next, nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenChat:
    messages: list[dict[str, str]]
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scores:
    """What a server says of one text."""

    logprob_sum: float
    top: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenTexts:
    """A language model's golden set in memory."""

    replay_per_s: ClassVar[int] = 20

    texts: tuple[GoldenText, ...]
    chats: tuple[GoldenChat, ...]
    perplexity: float
    """The reference's, over all texts."""
    max_perplexity_ratio: float
    min_margin: float

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `golden.json`; every size and number is checked. Raises CorruptBundle."""
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise CorruptBundle("golden set is too large", got=size, expected=f"<= {_MAX_FILE_BYTES} bytes")
        try:
            raw = json.loads(path.read_bytes())
            _check("schema_version", raw["schema_version"] == 1)
            texts = tuple(_text(entry) for entry in _list(raw, "texts", 1, _MAX_TEXTS))
            golden = cls(
                texts=texts,
                chats=tuple(_chat(entry) for entry in _list(raw, "chats", 0, _MAX_CHATS)),
                perplexity=_number(raw, "perplexity", at_least=1.0),
                max_perplexity_ratio=_number(raw, "max_perplexity_ratio", at_least=1.0),
                min_margin=_number(raw, "min_margin", at_least=0.0),
            )
            summed = perplexity([(text.logprob_sum, len(text.top)) for text in texts])
            _check("perplexity", math.isclose(golden.perplexity, summed, rel_tol=_SUM_TOLERANCE))
            return golden
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as broken:
            raise CorruptBundle("golden set cannot be read", got=repr(broken), expected="see docs/api.md") from broken

    def requests(self, model: str) -> list[tuple[str, dict[str, Any]]]:
        """Each text's beginning, streamed, so that the gateway's latency is the time to the first token."""
        asked = {"model": model, "max_tokens": _REPLAY_TOKENS, "temperature": 0, "stream": True}
        prompts = [text.text[:_REPLAY_CHARACTERS] for text in self.texts]
        return [("/v1/completions", {**asked, "prompt": prompt}) for prompt in prompts]

    async def check(
        self, session: aiohttp.ClientSession, url: str, model: str, policy: PromotionPolicy
    ) -> list[GateResult]:
        """Tokenizer, chat template, perplexity and first choices; `policy` has no say in what a file fixes."""
        limit = asyncio.Semaphore(_CONCURRENCY)

        async def ask(path: str, body: dict[str, Any]) -> Any:
            async with limit, session.post(url + path, json={"model": model, **body}) as response:
                if path == _TOKENIZE and 400 <= response.status < 500:
                    # A template that fails on a chat is a wrong template, not a server that does not answer.
                    return {"tokens": []}
                if response.status != 200:
                    got = f"HTTP {response.status} of {path}: {(await response.text())[:200]}"
                    raise BadUpstream("model server refused", got=got, expected="200")
                return await response.json(content_type=None)

        said = await asyncio.gather(*(ask(_TOKENIZE, {"prompt": text.text}) for text in self.texts))
        chats = await asyncio.gather(*(ask(_TOKENIZE, {"messages": chat.messages}) for chat in self.chats))
        tokenizer = judge_equal_ids("tokenizer", _equal(said, [text.token_ids for text in self.texts]))
        template = judge_equal_ids("chat template", _equal(chats, [chat.token_ids for chat in self.chats]))
        if failures([tokenizer]):
            # What another tokenizer's ids mean to this model says nothing.
            return [tokenizer, template]
        answers = await asyncio.gather(*(ask("/v1/completions", _scoring(text)) for text in self.texts))
        scores = [_scores(answer, text) for answer, text in zip(answers, self.texts, strict=True)]
        return [tokenizer, template, *self._judge(scores)]

    def _judge(self, scores: list[_Scores]) -> list[GateResult]:
        measured = perplexity([(score.logprob_sum, len(score.top)) for score in scores])
        size = sum(text.bytes for text in self.texts)
        bits = [-sum(item.logprob_sum for item in items) / math.log(2) / size for items in (scores, self.texts)]
        clear = [
            mine == reference
            for score, text in zip(scores, self.texts, strict=True)
            for mine, reference, margin in zip(score.top, text.top, text.margins, strict=True)
            if margin >= self.min_margin
        ]
        return [
            judge_perplexity(measured, self.perplexity, self.max_perplexity_ratio, bits_per_byte=(bits[0], bits[1])),
            judge_first_choices(sum(clear), len(clear), self.min_margin),
        ]


def perplexity(sums: list[tuple[float, int]]) -> float:
    """exp of the mean negative log-likelihood, from (log-probability sum in nats, tokens) of each text."""
    mean = -sum(nats for nats, _ in sums) / sum(tokens for _, tokens in sums)
    return math.exp(min(mean, _MAX_NATS))


def _scoring(text: GoldenText) -> dict[str, Any]:
    """Ids rather than text: what the tokenizer makes of it is judged apart."""
    return {"prompt": list(text.token_ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}


def _equal(answers: list[Any], expected: list[tuple[int, ...]]) -> list[bool]:
    return [_ids(answer) == ids for answer, ids in zip(answers, expected, strict=True)]


def _ids(answer: Any) -> tuple[int, ...]:
    try:
        return tuple(map(int, answer["tokens"]))
    except (KeyError, TypeError, ValueError) as broken:
        raise BadUpstream("model server's tokens cannot be read", got=repr(broken), expected="tokens") from broken


def _scores(answer: Any, text: GoldenText) -> _Scores:
    """From `prompt_logprobs`: for each token after the first, the entries of itself and of the first choice."""
    try:
        entries = answer["choices"][0]["prompt_logprobs"][1:]
        if len(entries) != len(text.top):
            raise ValueError(f"{len(entries)} log-probabilities for {len(text.top)} tokens")
        total = math.fsum(float(e[str(id)]["logprob"]) for e, id in zip(entries, text.token_ids[1:], strict=True))
        top = tuple(int(min(entry, key=lambda id: int(entry[id]["rank"]))) for entry in entries)
    except (KeyError, IndexError, TypeError, ValueError) as broken:
        got = repr(broken)
        raise BadUpstream(
            "model server's log-probabilities cannot be read", got=got, expected="prompt_logprobs"
        ) from broken
    if not math.isfinite(total):
        raise BadUpstream("model server's log-probabilities are no numbers", got=total, expected="finite ones")
    return _Scores(logprob_sum=total, top=top)


# Reading the file


def _check(name: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} does not hold")


def _list(raw: dict[str, Any], name: str, fewest: int, most: int) -> list[Any]:
    value = raw[name]
    _check(f"{name}: a list of {fewest} to {most}", isinstance(value, list) and fewest <= len(value) <= most)
    return list(value)


def _number(raw: dict[str, Any], name: str, *, at_least: float) -> float:
    value = float(raw[name])
    _check(f"{name}: a number >= {at_least:g}", math.isfinite(value) and value >= at_least)
    return value


def _ids_of(raw: dict[str, Any], name: str, fewest: int, most: int) -> tuple[int, ...]:
    ids = _list(raw, name, fewest, most)
    _check(f"{name}: token ids", all(type(id) is int and id >= 0 for id in ids))
    return tuple(ids)


def _short_text(value: Any) -> str:
    _check(f"a text of at most {_MAX_CHARACTERS} characters", isinstance(value, str) and len(value) <= _MAX_CHARACTERS)
    return str(value)


def _text(raw: dict[str, Any]) -> GoldenText:
    token_ids = _ids_of(raw, "token_ids", 2, _MAX_TOKENS)
    follow = len(token_ids) - 1
    margins = tuple(float(margin) for margin in _list(raw, "margins", follow, follow))
    _check("margins: numbers >= 0", all(math.isfinite(margin) and margin >= 0 for margin in margins))
    text = _short_text(raw["text"])
    _check("bytes: the text's", raw["bytes"] == len(text.encode()) > 0)
    nats = float(raw["logprob_sum"])
    _check("logprob_sum: a number <= 0", math.isfinite(nats) and nats <= 0)
    top = _ids_of(raw, "top", follow, follow)
    return GoldenText(text=text, token_ids=token_ids, logprob_sum=nats, bytes=raw["bytes"], top=top, margins=margins)


def _chat(raw: dict[str, Any]) -> GoldenChat:
    messages = [
        {"role": _short_text(message["role"]), "content": _short_text(message["content"])}
        for message in _list(raw, "messages", 1, _MAX_MESSAGES)
    ]
    return GoldenChat(messages=messages, token_ids=_ids_of(raw, "token_ids", 1, _MAX_TOKENS))
