"""The golden set of a language model: fixed held-out texts and chats with what the FP32 reference makes of them.

`golden.json` as docs/api.md defines it. A region compares token ids, log-probabilities and clear first
choices with it, never generated text: that differs from one kernel to the next for no fault of the model's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidInput
from serving.files import canonical_json
from tasks.artifacts import Figure
from tasks.data.tokenizer import EOS, load_tokenizer
from tasks.recipes.family import Golden, HeldOut

GOLDEN: Final = "golden.json"
SCHEMA_VERSION: Final = 1
MAX_PERPLEXITY_RATIO: Final = 1.10
"""A region's perplexity may be this share of the reference's: bfloat16 costs well under 1 %, damage far more."""
MIN_MARGIN: Final = 0.5
"""Lead (nats) from which a first choice must be the same; rounding swaps closer ones."""
_DIGITS: Final = 6
"""Of log-probabilities in the file: beyond float32's own precision."""
_SHORTEST: Final = 32
"""Tokens that a text must have to say something of the model."""

LogProbabilities = Callable[[list[int]], NDArray[np.float32]]
"""The reference: token ids (T) to log-probabilities (T, vocabulary), nats, of what follows each."""

CHATS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (("user", "def add(a, b):"),),
    (("user", "What does os.path.join do?"),),
    (("system", "You complete Python."), ("user", "import os\n")),
    (("user", "one"), ("assistant", "two"), ("user", "three")),
    (("system", "Kurz, bitte."), ("user", "Grüße, 世界! \U0001f40d"), ("assistant", "…"), ("user", "ok")),
    (("user", "class Stack:\n    def push(self, item):\n        self.items.append(item)\n"),),
    (("user", "  spaces\tand\ttabs  \n\n"), ("assistant", ""), ("user", "x = {'a': 1}")),
    (("user", "for i in range(10):"), ("assistant", "    print(i)"), ("user", "while True:")),
)
"""Every turn order, an empty message, white space at both ends, and characters of one to four bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenText:
    """One text; lists are as long as `token_ids` less one."""

    text: str
    token_ids: list[int]
    logprob_sum: float
    """Over `token_ids[1:]`, nats."""
    bytes: int
    top: list[int]
    """`top[i]` is ranked first after `token_ids[: i + 1]`."""
    margins: list[float]
    """Its lead over the second, nats."""


def language_golden(held_out: HeldOut, log_probabilities: LogProbabilities, *, context: int) -> Golden:
    """Pick texts from the held-out samples, one per file as far as they go, and score them.

    Raises:
        InvalidInput: no held-out sample gives a text of whole lines.
    """
    tokenizer = load_tokenizer(held_out.folder)
    longest = min(200, context - context // 4)
    picked = list(islice(_texts(held_out, tokenizer, longest), held_out.samples))
    if not picked:
        raise InvalidInput("no golden text can be made", got="no held-out sample of whole lines", expected="one")
    return golden_of(picked, tokenizer, log_probabilities)


def golden_of(picked: Sequence[tuple[str, list[int]]], tokenizer: Any, log_probabilities: LogProbabilities) -> Golden:
    """Score texts (each with its token ids) and render the chats.

    Args:
        tokenizer: a transformers tokenizer; without a chat template there are no chats.
    """
    texts = [_score(text, ids, log_probabilities) for text, ids in picked]
    nats = -sum(text.logprob_sum for text in texts)
    tokens = sum(len(text.top) for text in texts)
    perplexity = float(np.exp(nats / tokens))
    chats = list(_chats(tokenizer))
    content = {
        "schema_version": SCHEMA_VERSION,
        "texts": [asdict(text) for text in texts],
        "chats": chats,
        "perplexity": round(perplexity, _DIGITS),
        "bits_per_byte": round(float(nats / np.log(2) / sum(text.bytes for text in texts)), _DIGITS),
        "max_perplexity_ratio": MAX_PERPLEXITY_RATIO,
        "min_margin": MIN_MARGIN,
    }
    hits = sum(int(np.equal(text.top, text.token_ids[1:]).sum()) for text in texts)
    clear = sum(margin >= MIN_MARGIN for text in texts for margin in text.margins)
    return Golden(
        file=GOLDEN,
        content=canonical_json(content),
        samples=len(texts),
        accuracy=hits / tokens,
        figures=[
            Figure(name="golden_perplexity", value=perplexity, unit="tokens"),
            Figure(name="golden_tokens", value=float(tokens), unit="tokens"),
            Figure(name="golden_clear_choices", value=float(clear), unit="tokens"),
            Figure(name="golden_chats", value=float(len(chats)), unit="chats"),
        ],
    )


def _texts(held_out: HeldOut, tokenizer: Any, longest: int) -> Iterator[tuple[str, list[int]]]:
    """Text and token ids, first one per file, then more, at most `longest` tokens of whole lines each."""
    seen: dict[int, int] = {}
    rounds = []
    for index, file in enumerate(held_out.test["files"].tolist()):
        seen[file] = seen.get(file, 0) + 1
        rounds.append((seen[file], index))
    eos = tokenizer.convert_tokens_to_ids(EOS)
    for _, index in sorted(rounds):
        sample = held_out.test["tokens"][index, 1:]
        if eos in sample:
            continue
        # The first line is the end of one that began in another sample; the last one goes on.
        lines = tokenizer.decode(sample[: longest - 1].tolist()).split("\n")[1:-1]
        text = "".join(f"{line}\n" for line in lines)
        ids = [int(token) for token in tokenizer(text)["input_ids"]]
        if "\ufffd" not in text and _SHORTEST <= len(ids) <= longest:
            yield text, ids


def _score(text: str, ids: list[int], log_probabilities: LogProbabilities) -> GoldenText:
    scores = log_probabilities(ids)[:-1]
    best = np.sort(np.partition(scores, -2, axis=1)[:, -2:], axis=1)
    return GoldenText(
        text=text,
        token_ids=ids,
        logprob_sum=round(float(scores[np.arange(len(scores)), ids[1:]].sum(dtype=np.float64)), _DIGITS),
        bytes=len(text.encode()),
        top=scores.argmax(axis=1).tolist(),
        margins=[round(float(margin), _DIGITS) for margin in best[:, 1] - best[:, 0]],
    )


def _chats(tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Every chat that the template takes; templates of other families may refuse some turn orders."""
    from jinja2.exceptions import TemplateError

    for chat in CHATS if tokenizer.chat_template else ():
        try:
            yield _render(chat, tokenizer)
        except TemplateError:
            continue


def _render(chat: tuple[tuple[str, str], ...], tokenizer: Any) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in chat]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    return {"messages": messages, "token_ids": [int(token) for token in rendered["input_ids"]]}
