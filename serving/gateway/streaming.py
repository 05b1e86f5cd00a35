"""Relays one stream of a language model: nothing before its first token, nothing held back after it.

The first events wait until one says something, so that a model server which fails before it can still be
replaced by another. From then on every event goes on as it came, and the next one is read only when the
client has taken it: a slow client slows the model server down instead of filling the gateway's memory.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving.errors import BadUpstream, RetryableError, TimedOut
from serving.gateway.blame import BoundReached
from serving.gateway.completions import Seen, StreamJudge
from serving.gateway.sse import Event, SseParser
from serving.gateway.upstream import AnswerStream

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamLimits:
    first_token_s: float = 60.0
    """From the attempt's start, at most (lateness.py); then another backend is asked."""
    stall_s: float = 60.0
    """Between two events, and for a client to take what it is sent."""
    total_s: float = 1800.0
    """A stream that lasts longer is broken off: a bound on what one request may hold."""
    max_event_bytes: int = 1024 * 1024
    """Of one event. Tool calls and log-probabilities make large ones; a megabyte is rubbish."""
    max_held_events: int = 16
    """Events without content that are held back before the answer begins all the same: several tokens may
    make one character."""


class ClientTooSlow(Exception):
    """The client has not taken what it was sent: it is treated as one that left."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The model server blamed the request before the first token: its status and body, for the client."""

    status: int
    body: bytes


@dataclass(slots=True)
class _Piece:
    """What one read brought."""

    wire: bytes = b""
    """What to send on."""
    events: int = 0
    """Comments excluded."""
    tokens: int = 0
    """Those of the events that say something."""
    done: bool = False
    failure: RetryableError | None = None
    """What broke the stream off, behind `wire`."""
    refused: Refused | None = None

    def add(self, seen: Seen, event: Event) -> None:
        if seen.refusal is not None:
            self.refused = Refused(seen.refusal, event.data or b"")
            return
        self.events += event.data is not None
        self.tokens += seen.content
        self.done = seen.done
        if seen.forward:
            self.wire += event.raw


class _Watch:
    """Raises TimeoutError in the block it guards once its deadline has passed. Use `async with`.

    A stream moves its deadline with every token. Here that is an assignment: the timer looks, when it fires,
    whether the deadline has moved, and sets itself again.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> "_Watch":
        self._loop = asyncio.get_running_loop()
        await self._scope.__aenter__()
        self._timer = self._loop.call_at(self.deadline, self._look)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(*exc)

    def _look(self) -> None:
        if self._loop.time() >= self.deadline:
            self._scope.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_at(self.deadline, self._look)


class CompletionStream:
    """A stream from its opening to its end. Use `begin`, then `relay`; `close` in any case."""

    def __init__(
        self, answer: AnswerStream, judge: StreamJudge, limits: StreamLimits, *, clock: Clock = time.perf_counter
    ) -> None:
        self._answer = answer
        self._judge = judge
        self._limits = limits
        self._clock = clock
        self._parser = SseParser(max_event_bytes=limits.max_event_bytes)
        self._begun = _Piece()
        self._sending = False
        self._whole = False

    async def begin(self, *, within_s: float) -> Refused | None:
        """Read up to the first event that says something. Any failure up to it raises: nothing was sent yet."""
        begun = self._begun
        with _late_is("stream did not begin"):
            async with asyncio.timeout(within_s):
                while not (begun.tokens or begun.done or begun.events > self._limits.max_held_events):
                    piece = await self._read()
                    if piece.refused is not None:
                        return piece.refused
                    if piece.failure is not None:
                        raise piece.failure
                    begun.wire += piece.wire
                    begun.events += piece.events
                    begun.tokens += piece.tokens
                    begun.done = piece.done
        return None

    async def relay(self, send: Callable[[bytes], Awaitable[None]], on_token: Callable[[float], None]) -> None:
        """Send on from the first event to `[DONE]`; `on_token` gets the seconds from one token to the next.

        Raises what broke the stream off, and ClientTooSlow.
        """
        ends = asyncio.get_running_loop().time() + self._limits.total_s
        try:
            with _late_is("stream stalled"):
                await self._relay(send, on_token, ends=ends)
        except TimedOut:
            if self._sending:
                raise ClientTooSlow from None
            if asyncio.get_running_loop().time() >= ends:
                raise BoundReached("stream takes too long", expected=f"<= {self._limits.total_s:g} s") from None
            raise

    async def _relay(
        self, send: Callable[[bytes], Awaitable[None]], on_token: Callable[[float], None], *, ends: float
    ) -> None:
        now, stall_s = asyncio.get_running_loop().time, self._limits.stall_s
        piece, last_token = self._begun, self._clock()
        for _ in range(piece.tokens - 1):
            on_token(0.0)
        async with _Watch(now() + stall_s) as watch:
            while True:
                if piece.wire:
                    self._sending = True
                    await send(piece.wire)
                    self._sending = False
                if piece.failure is not None:
                    raise piece.failure
                if piece.refused is not None:
                    raise BadUpstream("stream broke off with an error", got=piece.refused.body[:200])
                if piece.done:
                    self._whole = True
                    return
                if piece.events:
                    # Comments alone move no deadline. Anew after sending, so that time a slow client took is not
                    # held against the model server.
                    watch.deadline = min(now() + stall_s, ends)
                piece = await self._read()
                if piece.events:
                    watch.deadline = min(now() + stall_s, ends)
                if piece.tokens:
                    last_token = self._tell_gaps(piece.tokens, last_token, on_token)

    def _tell_gaps(self, tokens: int, last_token: float, on_token: Callable[[float], None]) -> float:
        now = self._clock()
        for _ in range(tokens):
            on_token((now - last_token) / tokens)
        return now

    async def _read(self) -> _Piece:
        """What comes next, and why there will be no more if that is so."""
        chunk = await self._answer.read()
        piece = _Piece()
        try:
            if not chunk:
                raise BadUpstream("stream was cut off", expected="its end mark")
            for event in self._parser.feed(chunk):
                seen = self._judge.see(event)
                piece.add(seen, event)
                if piece.done or piece.refused is not None:
                    break
        except RetryableError as failed:
            piece.failure = failed
        return piece

    async def close(self) -> None:
        """Give the connection back after a whole stream, cut it after any other: the model server stops."""
        if self._whole:
            await self._answer.finish()
        else:
            self._answer.close()


@contextmanager
def _late_is(what: str) -> Iterator[None]:
    """A bound of ours that was passed, as an error that names it."""
    try:
        yield
    except TimeoutError as late:
        raise TimedOut(what, expected="an event in time") from late
