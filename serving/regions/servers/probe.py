"""A real inference, asked of a model server by its own API: what comes back is its sign of life.

It goes straight to the server, so no gateway counts it and no gate sees it. Any answer is a sign of life, a refusal
too: whether answers are good is for gates and gateways to judge. While an answer is owed, the server is asked for
signs of work as well, by which a busy one is known (`serving/liveness.py` judges).
"""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from serving.bundle import Manifest, read_manifest
from serving.errors import CorruptBundle
from serving.regions.servers.commands import Engine
from serving.regions.servers.server_metrics import read_metrics
from serving.regions.servers.server_process import ServerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeSettings:
    every_s: float = 2.0
    """From an answer to the next question."""
    share: float = 0.05
    """Most of a server's time that questions may take: a slow one is asked less often, down to every `again_s`."""
    again_s: float = 15.0
    """An open question is followed by another: the server may have lost just that one."""
    timeout_s: float = 120.0
    """How long a question stays open, as long as a silent server is left alone: the queue before it may be long."""
    work_every_s: float = 5.0
    """How long an answer is owed before signs of work are looked for, and how often then."""
    work_timeout_s: float = 10.0
    """For those signs: a busy server is late with them too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a server is asked: a POST of `body`, or a GET where there is none."""

    path: str
    body: bytes | None


def make_question(spec: ServerSpec, engine: Engine) -> Question:
    """One token after a space of a language model, one row of zeros of any other, with which it was warmed up too.

    Zeros rather than a golden sample: every engine answered them before it was ready, and no file is read.
    A bundle that cannot be read any more leaves the question whether the server is ready.
    """
    try:
        manifest = read_manifest(spec.bundle)
    except CorruptBundle:
        return Question(path=engine.ready_path, body=None)
    if not manifest.inputs:
        body = {"model": spec.model, "prompt": " ", "max_tokens": 1, "temperature": 0}
        return Question(path="/v1/completions", body=json.dumps(body).encode())
    return Question(path=f"/v2/models/{quote(spec.model, safe='')}/infer", body=_zeros(manifest))


def _zeros(manifest: Manifest) -> bytes:
    """An Open Inference Protocol request, dynamic dimensions 1."""
    tensors: list[dict[str, Any]] = []
    for spec in manifest.inputs:
        shape = [max(size, 1) for size in spec.shape]
        zero = False if spec.datatype == "BOOL" else 0
        data = [zero] * math.prod(shape)
        tensors.append({"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data})
    return json.dumps({"inputs": tensors}, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Signs:
    """What was heard of a server since the last look."""

    answered: bool
    working: bool


class Probe:
    """Questions to one server process, asked beside whoever looks. Call `close` when the process is gone."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        question: Question,
        engine: Engine,
        *,
        settings: ProbeSettings,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._url = url
        self._question = question
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._open: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._ask_at = self._work_at = -math.inf
        self._answered = self._working = False
        self._last_work: int | None = None

    def look(self, *, urgent: bool) -> Signs:
        """What was heard since the last call. Asks what is due, and waits for nothing.

        `urgent`: ask at once unless a question is open, because the process seems to be stopped.
        """
        signs = Signs(answered=self._answered, working=self._working)
        self._answered = self._working = False
        now = self._clock()
        if now >= self._ask_at or (urgent and not self._open):
            if not self._open:
                self._work_at = now + self._settings.work_every_s
            self._ask_at = now + self._settings.again_s
            asking = asyncio.create_task(self._ask())
            self._open.add(asking)
            asking.add_done_callback(self._open.discard)
        if self._open and now >= self._work_at and (self._looking is None or self._looking.done()):
            self._work_at = now + self._settings.work_every_s
            self._looking = asyncio.create_task(self._look_for_work())
        return signs

    def close(self) -> None:
        for task in (*self._open, *([] if self._looking is None else [self._looking])):
            task.cancel()

    async def _ask(self) -> None:
        settings, began = self._settings, self._clock()
        method = "GET" if self._question.body is None else "POST"
        headers = {"content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        try:
            async with self._session.request(
                method, self._url + self._question.path, data=self._question.body, headers=headers, timeout=timeout
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._ask_at = min(self._ask_at, self._clock() + settings.every_s)
            return
        self._answered = True
        # Older questions were lost: this one was behind them.
        for other in self._open - {asyncio.current_task()}:
            other.cancel()
        took = self._clock() - began
        self._ask_at = self._clock() + min(max(settings.every_s, took / settings.share), settings.again_s)

    async def _look_for_work(self) -> None:
        """By the engine's own metrics. A runtime that tells none has the benefit of the doubt while it says ready."""
        prefix, timeout_s = self._engine.work_metrics, self._settings.work_timeout_s
        if not prefix:
            self._working = await answers(self._session, self._url + self._engine.ready_path, timeout_s=timeout_s)
            return
        text = await read_metrics(self._session, self._url, timeout_s=timeout_s)
        told = [line for line in text.splitlines() if line.startswith(prefix)]
        if told:
            work = hash(tuple(told))
            self._working = self._last_work not in (None, work)
            self._last_work = work


async def answers(session: aiohttp.ClientSession, url: str, *, timeout_s: float) -> bool:
    """Whether `GET url` is answered with 200 in time."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
