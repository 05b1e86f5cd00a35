"""Every way in which an attempt can fail has its own name, and nothing waits for ever."""

import asyncio
from collections.abc import Iterator

import pytest

from serving.asgi import Message, read_body
from serving.errors import (
    BadUpstream,
    FlightpathError,
    InvalidInput,
    NotConnected,
    Overloaded,
    RateLimited,
    RetryableError,
    TimedOut,
    TooLarge,
    Unreachable,
)
from serving.gateway.attempts import all_failed
from serving.gateway.upstream import Upstream, UpstreamLimits
from serving.routes import Backend
from tests.fakes.faulty_backend import (
    Behaviour,
    FaultyBackend,
    answer_body,
    answer_class,
    answer_status,
    answer_then_close_silently,
    break_off,
    hang_up,
    stall,
)
from tests.fakes.ports import free_port


@pytest.fixture
def server() -> Iterator[FaultyBackend]:
    with FaultyBackend(answer_class(3)) as backend:
        yield backend


def at(url: str, *, remote: bool = False) -> Backend:
    return Backend(id="b", release="r", version=1, region="us-east", url=url, remote=remote, weight=100)


async def attempt(url: str, *, remote: bool = False, timeout_s: float = 10.0, **limits: float) -> bytes:
    async with Upstream(UpstreamLimits(**limits)) as upstream:  # type: ignore[arg-type]
        return (await upstream.infer(at(url, remote=remote), "digits", b"{}", {}, timeout_s=timeout_s)).body


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (answer_status(500), BadUpstream),
        (answer_status(503), Overloaded),
        (answer_status(429), RateLimited),
        (answer_status(204), BadUpstream),
        (answer_status(302), BadUpstream),
        (answer_status(404), BadUpstream),
        (answer_body(b""), BadUpstream),
        (answer_body(b"[]"), BadUpstream),
        (answer_body(b'{"outputs": ' + b"1" * 70_000), BadUpstream),
        (break_off, BadUpstream),
        (hang_up, Unreachable),
    ],
)
async def test_a_failure_is_named(server: FaultyBackend, fault: Behaviour, error: type[FlightpathError]) -> None:
    server.behave(fault)
    with pytest.raises(RetryableError) as raised:
        await attempt(server.url)
    assert type(raised.value) is error


async def test_a_server_that_stalls_is_given_up(server: FaultyBackend) -> None:
    server.behave(stall(5))
    with pytest.raises(TimedOut, match="b did not answer in time"):
        await attempt(server.url, attempt_timeout_s=0.1)
    with pytest.raises(TimedOut, match="b did not answer in time"):
        await attempt(server.url, timeout_s=0.1)


async def test_a_refused_connection_went_to_no_server() -> None:
    with pytest.raises(NotConnected, match="b is unreachable") as raised:
        await attempt(f"http://127.0.0.1:{free_port()}")
    assert raised.value.servers == 0


async def test_a_request_is_sent_again_to_a_server_only_if_a_reused_connection_had_closed(
    server: FaultyBackend,
) -> None:
    async with Upstream() as upstream:

        async def ask() -> int:
            return (await upstream.infer(at(server.url), "digits", b"{}", {}, timeout_s=10)).status

        server.behave(answer_then_close_silently)
        assert [await ask() for _ in range(5)] == [200] * 5
        assert len(server.seen) == 5
        server.behave(answer_class(3))
        # The first of these goes over a connection of its own, for the one in the pool is closed.
        assert [await ask(), await ask()] == [200] * 2
        # Now a connection lies in the pool, and the server ends it when it is used: it may have read the request,
        # which cannot be told from one that was closed before. Sent once more, and no third time.
        server.behave(hang_up)
        with pytest.raises(Unreachable):
            await ask()
        assert len(server.seen) == 9
        with pytest.raises(Unreachable):
            await ask()
        assert len(server.seen) == 10


@pytest.mark.parametrize("told", ["7", "Fri, 27 Nov 2026 10:00:00 GMT"])
async def test_when_to_come_back_is_kept(server: FaultyBackend, told: str) -> None:
    server.behave(answer_status(503, retry_after=told))
    with pytest.raises(Overloaded) as raised:
        await attempt(server.url)
    assert raised.value.retry_after == told
    server.behave(answer_status(503, retry_after="soon\u00e9"))
    with pytest.raises(Overloaded) as raised:
        await attempt(server.url)
    assert raised.value.retry_after is None


async def test_another_region_tells_how_many_servers_had_the_request(server: FaultyBackend) -> None:
    for told, servers in (({"x_flightpath_tried": "2"}, 2), ({"x_flightpath_tried": "0"}, 0), ({}, 1)):
        server.behave(answer_status(502, **told))
        for remote, expected in ((True, servers), (False, 1)):
            with pytest.raises(BadUpstream) as raised:
                await attempt(server.url, remote=remote)
            assert raised.value.servers == expected


async def test_an_answer_beyond_the_bound_is_broken(server: FaultyBackend) -> None:
    server.behave(answer_body(b'{"outputs": [' + b" " * 2_000_000 + b"]}"))
    with pytest.raises(BadUpstream, match="answer is too large"):
        await attempt(server.url, max_answer_bytes=1_000_000)


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([TimedOut("late"), TimedOut("late")], 504),
        ([TimedOut("late"), Unreachable("gone")], 503),
        ([RetryableError("busy")], 503),
        ([Overloaded("busy"), BadUpstream("rubbish")], 503),
        ([TimedOut("late"), RateLimited("busy")], 429),
        ([Unreachable("gone"), BadUpstream("rubbish"), TimedOut("late")], 502),
    ],
)
def test_many_failures_make_one_status(failures: list[RetryableError], status: int) -> None:
    assert all_failed("digits", failures).http_status == status


async def body_of(*messages: Message, headers: list[tuple[bytes, bytes]] | None = None) -> bytes:
    waiting = list(messages)

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return await read_body({"headers": headers or []}, receive, limit_bytes=4, timeout_s=0.05)


def chunk(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_is_read_whole_up_to_its_bound() -> None:
    assert await body_of(chunk(b"ab", more=True), chunk(b"cd", more=False)) == b"abcd"
    with pytest.raises(TooLarge, match="<= 4 bytes"):
        await body_of(chunk(b"abc", more=True), chunk(b"de", more=True))
    with pytest.raises(TooLarge, match="got 5 bytes"):
        await body_of(headers=[(b"content-length", b"5")])


async def test_a_sender_that_stops_is_not_waited_for() -> None:
    with pytest.raises(TimedOut, match="did not arrive in time"):
        await body_of(chunk(b"ab", more=True))


async def test_a_sender_that_leaves_has_sent_no_body() -> None:
    with pytest.raises(InvalidInput, match="incomplete, got 2 bytes"):
        await body_of(chunk(b"ab", more=True), {"type": "http.disconnect"})
