"""What users ask: one question at a time to a region's gateway, judged by its answer.

A question that is not answered raises Unanswered with a short cause; anything else is an Answer.
"""

import itertools
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import numpy as np
from numpy.typing import NDArray

from serving.bundle import TensorSpec
from tasks.data.dataset import DATASET, read_split
from tasks.data.tokenizer import TOKENIZER


class Unanswered(Exception):
    """The user got no answer, or one that is no success."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    version: str
    """Of the model that answered, by the gateway's header."""
    correct: bool | None = None
    """Whether it was right, where the user knows."""


class Questions(Protocol):
    """An endless supply of questions of one kind."""

    default_rate_per_s: float
    """How often a region's users ask unless told otherwise."""

    async def ask(self, http: aiohttp.ClientSession, gateway_url: str) -> Answer: ...


def questions_for(dataset: Path, model: str, *, start: int) -> Questions:
    """Questions from the held-out split of a fetched data set; `start` keeps regions from asking in step.

    Beginnings of texts where the data set brings a tokenizer, else samples under the names that the model gives its
    inputs.
    """
    split = read_split(dataset, "test")
    if (dataset / TOKENIZER).is_file():
        return TextQuestions(model, _texts(dataset, split["tokens"]), start=start)
    classes = json.loads((dataset / DATASET).read_bytes())["classes"]
    return SampleQuestions(model, split, classes, start=start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A held-out question for a person to try."""

    path: str
    body: dict[str, object]


def example(dataset: Path, model: str, inputs: Sequence[TensorSpec]) -> Example:
    """For `/v1/predict`, or `/v2/models/…/infer` where the model has several inputs; streamed, `/v1/completions`.

    Args:
        inputs: of the model's manifest; empty for a language model.
    """
    split = read_split(dataset, "test")
    if not inputs:
        prompt = _texts(dataset, split["tokens"])[0]
        body = {"model": model, "prompt": prompt, "max_tokens": 32, "temperature": 0, "stream": True}
        return Example(path="/v1/completions", body=body)
    if len(inputs) == 1:
        samples = split[inputs[0].name][:1].tolist()
        return Example(path="/v1/predict", body={"model": model, "inputs": samples})
    first = {spec.name: split[spec.name][:1] for spec in inputs}
    types = {spec.name: spec.datatype for spec in inputs}
    return Example(path=f"/v2/models/{model}/infer", body=_infer_body(first, types))


def _infer_body(samples: Mapping[str, NDArray[Any]], datatypes: Mapping[str, str]) -> dict[str, object]:
    """A request of the Open Inference Protocol."""
    return {
        "inputs": [
            {"name": name, "shape": list(array.shape), "datatype": datatypes[name], "data": array.ravel().tolist()}
            for name, array in samples.items()
        ]
    }


def _texts(dataset: Path, tokens: NDArray[Any]) -> list[str]:
    """Beginnings of held-out texts, as a user would type them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(dataset / TOKENIZER))
    texts = (tokenizer.decode(row[:_PROMPT_TOKENS].tolist(), skip_special_tokens=True) for row in tokens[:_PROMPTS])
    return [text for text in texts if text.strip()]


_PROMPTS: Final = 64
_PROMPT_TOKENS: Final = 24
_ANSWER_TOKENS: Final = 16


class SampleQuestions:
    """One held-out sample at a time by the Open Inference Protocol (where the model has one input, one of four by
    `/v1/predict`), then the truth as feedback where there are labels."""

    default_rate_per_s = 40.0

    def __init__(self, model: str, split: Mapping[str, NDArray[Any]], classes: Sequence[str], *, start: int) -> None:
        """`classes` are the names that `/v1/predict` answers with, in label order."""
        self._model, self._split, self._classes = model, split, list(classes)
        labels = split.get("labels")
        self._labels = labels if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu" else None
        samples = len(next(iter(split.values())))
        self._order = itertools.islice(itertools.cycle(range(samples)), start % samples, None)
        self._by_predict = itertools.cycle([True, False, False, False])
        self._datatypes: dict[str, str] | None = None

    async def ask(self, http: aiohttp.ClientSession, gateway_url: str) -> Answer:
        if self._datatypes is None:
            self._datatypes = await self._inputs(http, gateway_url)
        index = next(self._order)
        asked = {name: self._split[name][index : index + 1] for name in self._datatypes}
        if next(self._by_predict) and len(asked) == 1:
            path, body = "/v1/predict", {"model": self._model, "inputs": next(iter(asked.values())).tolist()}
        else:
            path, body = f"/v2/models/{self._model}/infer", _infer_body(asked, self._datatypes)
        async with http.post(f"{gateway_url}{path}", json=body) as response:
            if response.status != 200:
                raise Unanswered(f"HTTP {response.status}")
            headers, answer = response.headers, await response.json()
        version = headers.get("x-flightpath-version", "unknown")
        if self._labels is None:
            return Answer(version=version)
        label = int(self._labels[index])
        token = headers.get("x-flightpath-feedback") or answer.get("feedback_token")
        if token:
            await self._tell_truth(http, gateway_url, token, label)
        return Answer(version=version, correct=self._class_of(answer) == label)

    def _class_of(self, answer: dict[str, Any]) -> int:
        """The class that an infer or a predict answer names."""
        try:
            if "predictions" in answer:
                return self._classes.index(str(answer["predictions"][0]["label"]))
            return int(np.argmax(answer["outputs"][0]["data"]))
        except (KeyError, IndexError, TypeError, ValueError) as broken:
            raise Unanswered("an answer that is none") from broken

    async def _inputs(self, http: aiohttp.ClientSession, gateway_url: str) -> dict[str, str]:
        """Datatypes by the names of the model's inputs, as the region's gateway tells them."""
        async with http.get(f"{gateway_url}/v2/models/{self._model}") as response:
            if response.status != 200:
                raise Unanswered(f"HTTP {response.status}")
            told = await response.json()
        inputs = {str(spec["name"]): str(spec["datatype"]) for spec in told["inputs"]}
        if missing := sorted(inputs.keys() - self._split.keys()):
            raise Unanswered(f"held-out data lacks {', '.join(missing)}")
        return inputs

    async def _tell_truth(self, http: aiohttp.ClientSession, gateway_url: str, token: str, label: int) -> None:
        """Feedback is a courtesy to the gateway: its loss is no failed request."""
        try:
            body = {"token": token, "labels": [label]}
            async with http.post(f"{gateway_url}/v1/feedback", json=body) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return


class TextQuestions:
    """Completions of held-out beginnings and chats, every second one as a stream."""

    default_rate_per_s = 0.5

    def __init__(self, model: str, texts: list[str], *, start: int) -> None:
        self._model = model
        self._texts = itertools.islice(itertools.cycle(texts), start % len(texts), None)
        self._kinds = itertools.cycle(itertools.product(("/v1/completions", "/v1/chat/completions"), (True, False)))

    async def ask(self, http: aiohttp.ClientSession, gateway_url: str) -> Answer:
        path, stream = next(self._kinds)
        text = next(self._texts)
        question = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
        body = {"model": self._model, "max_tokens": _ANSWER_TOKENS, "temperature": 0, "stream": stream, **question}
        async with http.post(f"{gateway_url}{path}", json=body) as response:
            if response.status != 200:
                raise Unanswered(f"HTTP {response.status}")
            if stream:
                check_stream([line async for line in _lines(response)])
            else:
                _check_ending((await response.json())["choices"][0]["finish_reason"])
            return Answer(version=response.headers.get("x-flightpath-version", "unknown"))


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        yield line.decode(errors="replace").strip()


def check_stream(lines: list[str]) -> None:
    """A whole stream: an ending that vLLM gives to a finished answer, then `[DONE]`; else Unanswered."""
    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    if not events or events[-1] != "[DONE]":
        raise Unanswered("a stream without its end")
    chunks = [json.loads(event) for event in events[:-1]]
    if any("error" in chunk for chunk in chunks):
        raise Unanswered("a stream with an error")
    endings = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    _check_ending(endings[-1] if endings else None)


def _check_ending(finish_reason: str | None) -> None:
    if finish_reason not in ("stop", "length", "tool_calls"):
        raise Unanswered(f"an answer that ended with {finish_reason}")
