"""What is asked is read without changing it, and only a proper ending is believed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadUpstream, InvalidInput, Overloaded, RateLimited
from serving.gateway.completions import StreamJudge, Usage, judge_answer, parse_request
from serving.gateway.sse import SseParser
from tests.fakes import faulty_llm as llm

CHAT = "/v1/chat/completions"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda name: name not in ("model", "stream", "stream_options")), JSON))
def test_a_stream_keeps_every_value_and_gains_only_the_usage(fields: dict[str, Any]) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"continuous_usage_stats": False}}):
        asked = {**fields, "model": "tiny", "stream": True, **options}
        request = parse_request(CHAT, json.dumps(asked).encode())
        expected = {**(asked.get("stream_options") or {}), "include_usage": True}
        assert json.loads(request.body) == {**asked, "stream_options": expected}
        assert not request.usage_wanted


def test_the_clients_own_bytes_stay_as_they_are() -> None:
    body = b' {"model": "tiny",\n "stream":true , "seed": 1e400}'
    assert parse_request(CHAT, body).body.endswith(body[2:])
    whole = b'{"model": "tiny", "stream": false}'
    assert parse_request(CHAT, whole).body is whole


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model": 1}', b'{"stream": true}', b'{"model": "m", "stream": 1}', b"\xff"]
)
def test_a_request_that_cannot_be_routed_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        parse_request(CHAT, body)


def follow(*steps: bytes, usage_wanted: bool = False) -> tuple[StreamJudge, list[tuple[bool, bool, bool]]]:
    judge = StreamJudge(usage_wanted=usage_wanted)
    events = SseParser(max_event_bytes=100_000).feed(b"".join(steps))
    return judge, [(seen.forward, seen.content, seen.done) for seen in map(judge.see, events)]


def test_a_whole_stream_is_followed_to_its_end() -> None:
    judge, seen = follow(*llm.whole("a"))
    assert seen == [(True, False, False), (True, True, False), (True, True, False), (False, False, False), (True, False, True)]  # fmt: skip # noqa: E501
    assert judge.usage == Usage(tokens_in=21, tokens_out=4)
    assert follow(*llm.whole("a"), usage_wanted=True)[1][3] == (True, False, False)


def test_usage_beside_tokens_is_read_and_sent_on() -> None:
    continuous = llm.token().replace(b'"model"', b'"usage":{"prompt_tokens":1,"completion_tokens":2},"model"')
    judge, seen = follow(continuous)
    assert seen == [(True, True, False)]
    assert judge.usage == Usage(1, 2)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning": "a"},
        {"tool_calls": [{"index": 0}]},
        {"refusal": "no"},
        {"function_call": {"a": 1}},
    ],
)
def test_anything_that_was_generated_is_content(delta: dict[str, Any]) -> None:
    event = (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode() + b"\n\n"
    )
    assert follow(event)[1] == [(True, True, False)]


@pytest.mark.parametrize("reason", ["abort", "error", "", 1, True, "STOP"])
def test_another_ending_is_not_believed(reason: Any) -> None:
    with pytest.raises(BadUpstream, match="did not end well"):
        follow(llm.token(), llm.finish(reason))


@pytest.mark.parametrize(
    "steps",
    [
        (llm.role(), llm.DONE),
        (llm.token(index=0), llm.token(index=1), llm.finish(index=1), llm.DONE),
        (llm.usage(), llm.DONE),
    ],
)
def test_an_end_with_a_choice_still_open_is_none(steps: tuple[bytes, ...]) -> None:
    with pytest.raises(BadUpstream, match="without a finish_reason"):
        follow(*steps)


@pytest.mark.parametrize(
    "data", [b"1", b"{}x", b'{"choices": 1}', b'{"choices": [1]}', b'{"choices": [{"index": []}]}']
)
def test_rubbish_is_named(data: bytes) -> None:
    with pytest.raises(BadUpstream):
        follow(b"data: " + data + b"\n\n")


def test_an_end_before_anything_is_what_an_overloaded_server_says() -> None:
    with pytest.raises(Overloaded, match="ended before it began"):
        follow(llm.DONE)


@pytest.mark.parametrize(("code", "kind"), [(429, RateLimited), (503, Overloaded)])
def test_an_error_event_may_say_that_there_is_no_room(code: int, kind: type[Overloaded]) -> None:
    with pytest.raises(Overloaded) as raised:
        follow(llm.error(code))
    assert type(raised.value) is kind


@pytest.mark.parametrize("data", [b'{"choices": [], "x": NaN}', b'{"choices": [], "x": -Infinity}'])
def test_what_json_does_not_allow_is_the_servers(data: bytes) -> None:
    with pytest.raises(BadUpstream, match="not JSON"):
        follow(b"data: " + data + b"\n\n")


@pytest.mark.parametrize("code", [500, None, "400", 401, 404])
def test_only_an_error_that_blames_the_request_does_so(code: Any) -> None:
    with pytest.raises(BadUpstream, match="broke off with an error"):
        follow(llm.error(code))
    judge = StreamJudge(usage_wanted=False)
    (event,) = SseParser(max_event_bytes=1000).feed(llm.error(400))
    assert judge.see(event).refusal == 400


def test_the_last_of_two_keys_of_one_name_counts_however_it_is_spelled() -> None:
    body = b'{"model":"tiny","stream":true,"stream_\\u006fptions":null}'
    assert json.loads(parse_request(CHAT, body).body)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "usage",
    [None, 1, {}, {"prompt_tokens": -1}, {"prompt_tokens": 10**30}, {"prompt_tokens": True, "completion_tokens": 1}],
)
def test_usage_that_makes_no_sense_is_not_counted(usage: Any) -> None:
    answer = {"choices": [{"index": 0, "finish_reason": "stop"}], "usage": usage}
    assert judge_answer(json.dumps(answer).encode()) is None
