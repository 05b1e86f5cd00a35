"""The table of blame, row by row: no status, ending or error is left without a verdict, for any API."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.counters import ENDINGS as OUTCOMES
from serving.errors import (
    BadUpstream,
    Conflict,
    InvalidInput,
    NotConnected,
    Overloaded,
    RateLimited,
    RetryableError,
    TimedOut,
    Unprocessable,
    Unreachable,
)
from serving.gateway import blame
from serving.gateway.blame import Api, Ejects, Verdict

USERS_APIS = [Api.INFER, Api.COMPLETION, Api.STREAM]
ALL = [blame.ANSWERED, blame.REFUSED, blame.FAILED, blame.OVERLOADED, blame.LATE, blame.ABANDONED, blame.UNKNOWN]


def test_each_outcome_that_is_counted_has_one_verdict() -> None:
    assert sorted(verdict.outcome for verdict in ALL) == sorted(OUTCOMES)


@pytest.mark.parametrize("api", USERS_APIS)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, blame.ANSWERED),
        *((status, blame.REFUSED) for status in (400, 413, 422)),
        *((status, blame.OVERLOADED) for status in (429, 503)),
        *((status, blame.FAILED) for status in (201, 202, 204, 206, 301, 302, 304, 307, 308)),
        *((status, blame.FAILED) for status in (401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 414, 415, 418, 431)),
        *((status, blame.FAILED) for status in (500, 501, 502, 504, 505, 599)),
    ],
)
def test_a_status_says_whose_fault_it_is(api: Api, status: int, verdict: Verdict) -> None:
    assert blame.of_status(api, status) is verdict


@given(st.sampled_from(list(Api)), st.integers(0, 1000))
def test_whatever_is_not_listed_is_the_servers(api: Api, status: int) -> None:
    if status not in (200, 400, 413, 422, 429, 503):
        assert blame.of_status(api, status) is blame.FAILED


@pytest.mark.parametrize("status", [400, 413, 422, 404])
def test_no_user_has_a_part_in_a_question_for_metadata(status: int) -> None:
    assert blame.of_status(Api.METADATA, status) is blame.FAILED


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call", "content_filter", "repetition"])
def test_endings_of_the_protocol_are_believed(reason: str) -> None:
    assert blame.of_ending(reason) is blame.ANSWERED


@pytest.mark.parametrize("reason", ["abort", "error", "", "STOP", None, 1, True, [], {"stop": 1}])
def test_any_other_ending_is_the_servers(reason: object) -> None:
    assert blame.of_ending(reason) is blame.FAILED


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (NotConnected("gone"), blame.FAILED),
        (Unreachable("cut"), blame.FAILED),
        (BadUpstream("rubbish"), blame.FAILED),
        (RetryableError("anything"), blame.FAILED),
        (Overloaded("full"), blame.OVERLOADED),
        (RateLimited("full"), blame.OVERLOADED),
        (TimedOut("late"), blame.LATE),
        (blame.BoundReached("half an hour"), blame.UNKNOWN),
        (InvalidInput("wrong"), blame.REFUSED),
        (Unprocessable("overflow"), blame.REFUSED),
        (Conflict("wrong"), blame.REFUSED),
        (ValueError("ours"), blame.UNKNOWN),
        (asyncio.CancelledError(), blame.UNKNOWN),
    ],
)
def test_an_error_says_whose_fault_it_is(error: BaseException, verdict: Verdict) -> None:
    assert blame.of_error(error) is verdict


def test_what_may_follow() -> None:
    elsewhere = {verdict.outcome for verdict in ALL if verdict.elsewhere}
    ejecting = {verdict.outcome: verdict.ejects for verdict in ALL if verdict.ejects is not Ejects.NEVER}
    assert elsewhere == {"failed", "overloaded", "late"}
    assert ejecting == {"failed": Ejects.IN_A_ROW, "late": Ejects.AT_ONCE}
    assert {verdict.outcome for verdict in ALL if verdict.alive} == {"answered", "refused", "overloaded"}


def test_an_overloaded_servers_words_are_kept() -> None:
    error = blame.error_of(blame.OVERLOADED, 429, "b has no room", got="HTTP 429: later", retry_after="7")
    assert isinstance(error, RateLimited)
    assert (error.http_status, error.retry_after) == (429, "7")
    assert type(blame.error_of(blame.FAILED, 401, "b failed", got="HTTP 401", retry_after="7")) is BadUpstream
