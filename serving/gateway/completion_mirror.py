"""Repeats completions on both of two versions, greedily, so that an agent can score how far their texts differ.

Off by default: a repeat costs as much as an answer. Users' answers are sampled and say different things each time, so
both versions are asked anew, without randomness and briefly. Nothing is judged here: the pairs of texts wait, bounded,
until the region's agent takes them.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json

from serving.errors import FlightpathError
from serving.gateway.calls import Call
from serving.gateway.completions import judge_answer
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.upstream import Upstream
from serving.routes import Backend, Route

_FREE_TEXT_ONLY: Final = (
    "tools",
    "functions",
    "tool_choice",
    "function_call",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)
"""Requests with one of these are bound to a form: what their texts share says little."""
_DROPPED: Final = (
    "stream",
    "stream_options",
    "best_of",
    "use_beam_search",
    "top_p",
    "top_k",
    "min_p",
    "max_completion_tokens",
    "min_tokens",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionMirrorLimits:
    max_tokens: int = 64
    """Of each repeated answer."""
    max_queued: int = 64
    """Repeats that wait; more are dropped and counted."""
    max_queued_bytes: int = 8 * 1024 * 1024
    """Of their requests together."""
    max_request_bytes: int = 256 * 1024
    """Longer requests are not repeated."""
    workers: int = 2
    """Requests at a time, each on both versions."""
    timeout_s: float = 60.0
    """For each of the two answers."""
    max_pairs: int = 256
    """Of each model, until the agent takes them; then the oldest are dropped."""
    max_pairs_bytes: int = 8 * 1024 * 1024
    """The same in bytes."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What both versions say to one request."""

    seq: int
    wire: dict[str, Any]
    size_bytes: int


class PairStore:
    """Pairs by model, the oldest first. A reader names the last one it has, and everything up to it is forgotten."""

    def __init__(self, limits: CompletionMirrorLimits) -> None:
        self._limits = limits
        self._models: dict[str, deque[Pair]] = {}
        self._bytes: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._seq = 0

    def put(self, model: str, path: str, request: dict[str, Any], candidate: str, live: str) -> None:
        self._seq += 1
        wire = {"seq": self._seq, "path": path, "request": request, "candidate": candidate, "live": live}
        pair = Pair(self._seq, wire, len(to_json(wire)))
        pairs = self._models.setdefault(model, deque())
        pairs.append(pair)
        self._bytes[model] = self._bytes.get(model, 0) + pair.size_bytes
        while len(pairs) > self._limits.max_pairs or self._bytes[model] > self._limits.max_pairs_bytes:
            self._take_first(model)
            self._dropped[model] = self._dropped.get(model, 0) + 1

    def read(self, model: str, *, after: int) -> dict[str, Any]:
        """The pairs after `after`; those up to it are forgotten."""
        pairs = self._models.get(model, deque())
        while pairs and pairs[0].seq <= after:
            self._take_first(model)
        return {"pairs": [pair.wire for pair in pairs], "dropped": self._dropped.get(model, 0)}

    def forget(self, model: str) -> None:
        for kept in (self._models, self._bytes, self._dropped):
            kept.pop(model, None)

    def _take_first(self, model: str) -> None:
        self._bytes[model] -= self._models[model].popleft().size_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    model: str
    path: str
    body: bytes
    candidate: Backend
    live: Backend
    headers: Mapping[str, Mapping[str, str]]
    """By backend id."""


class CompletionMirror:
    """The queue and its workers. Use `async with`."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: GatewayMetrics,
        pairs: PairStore,
        limits: CompletionMirrorLimits,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._pairs = pairs
        self._limits = limits
        self._draw = draw
        self._queue: asyncio.Queue[_Job] = asyncio.Queue(maxsize=limits.max_queued)
        self._queued_bytes = 0
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "CompletionMirror":
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._limits.workers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def consider(self, route: Route, answered_by: Backend, path: str, body: bytes, call: Call) -> None:
        """Perhaps repeat a request that a user has an answer to."""
        mirror = route.mirror
        if mirror is None or not mirror.completions_share or call.synthetic:
            return
        if answered_by.id not in (mirror.candidate, mirror.live) or self._draw() >= mirror.completions_share:
            return
        candidate, live = route.backend(mirror.candidate), route.backend(mirror.live)
        if candidate is None or live is None or (call.hop and (candidate.remote or live.remote)):
            return
        too_large = len(body) > self._limits.max_request_bytes
        if too_large or self._queue.full() or self._queued_bytes + len(body) > self._limits.max_queued_bytes:
            self._metrics.count_mirrored(route.model, "dropped")
            return
        headers = {backend.id: call.headers_for(backend, synthetic=True) for backend in (candidate, live)}
        self._queued_bytes += len(body)
        self._queue.put_nowait(
            _Job(model=route.model, path=path, body=body, candidate=candidate, live=live, headers=headers)
        )

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            self._queued_bytes -= len(job.body)
            request = greedy_request(job.body, max_tokens=self._limits.max_tokens)
            if request is not None:
                self._metrics.count_mirrored(job.model, await self._repeat(job, request))

    async def _repeat(self, job: _Job, request: dict[str, Any]) -> str:
        """`agreed` or `differed` as texts, or `failed` when there are no two of them."""
        body = to_json(request)
        try:
            candidate, live = await asyncio.gather(
                *(self._ask(job, backend, body) for backend in (job.candidate, job.live))
            )
        except FlightpathError:
            return "failed"
        if candidate is None or live is None:
            return "failed"
        self._pairs.put(job.model, job.path, request, candidate, live)
        return "agreed" if candidate == live else "differed"

    async def _ask(self, job: _Job, backend: Backend, body: bytes) -> str | None:
        answer = await self._upstream.complete(
            backend, job.path, body, job.headers[backend.id], timeout_s=self._limits.timeout_s
        )
        if answer.status != 200:
            return None
        judge_answer(answer.body)
        return text_of(answer.body)


def greedy_request(body: bytes, *, max_tokens: int) -> dict[str, Any] | None:
    """The request without randomness, for one brief answer; None if it asks for a form, or for several answers."""
    try:
        asked = from_json(body, allow_inf_nan=False)
    except ValueError:
        return None
    prompt = asked.get("prompt")
    several = isinstance(prompt, list) and not all(type(token) is int for token in prompt)
    if several or any(asked.get(name) for name in _FREE_TEXT_ONLY):
        return None
    limits = [asked.get(name) for name in ("max_tokens", "max_completion_tokens")]
    wanted = min([max_tokens, *(limit for limit in limits if type(limit) is int and limit > 0)])
    kept = {name: value for name, value in asked.items() if name not in _DROPPED}
    return {**kept, "max_tokens": wanted, "temperature": 0, "n": 1, "stream": False}


def text_of(body: bytes) -> str | None:
    """The text of a whole answer's one choice."""
    (choice, *more) = from_json(body)["choices"]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) and not more else None
