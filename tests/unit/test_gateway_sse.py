"""Any chunking of an event stream gives the same events, and nothing of it is lost or kept back."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadUpstream
from serving.gateway.sse import Event, SseParser, encode_event

LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"data:  c", b": comment", b"event: x", b"id: 1", b"datax: no"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def parse(*chunks: bytes, limit: int = 1000) -> list[Event]:
    parser = SseParser(max_event_bytes=limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def data_of(*chunks: bytes) -> list[bytes | None]:
    return [event.data for event in parse(*chunks)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes | None]]:
    """The bytes of a stream and the data of its events, line ends mixed at will."""
    wire, expected = b"", []
    for lines in draw(st.lists(st.lists(LINES, min_size=1, max_size=4), max_size=6)):
        wire += b"".join(line + draw(ENDS) for line in lines)
        # A CR and an LF side by side would be one line end.
        wire += b"\r" if wire.endswith(b"\r") else draw(ENDS)
        wire += draw(st.sampled_from([b"", b"\r\n"])) if wire.endswith(b"\r\n") else b""
        values = [line[5:].removeprefix(b" ") for line in lines if line == b"data" or line.startswith(b"data:")]
        expected.append(b"\n".join(values) if values else None)
    return wire, expected


def cut(wire: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(wire) + 1) for position in at), len(wire)]
    return [wire[start:end] for start, end in itertools.pairwise(edges)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_chunking_gives_the_same_events(stream: tuple[bytes, list[bytes | None]], at: list[int]) -> None:
    wire, expected = stream
    assert data_of(*cut(wire, at)) == expected
    assert data_of(*(wire[index : index + 1] for index in range(len(wire)))) == expected


@given(streams(), st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_sent_on_reads_as_what_came_in(stream: tuple[bytes, list[bytes | None]], at: list[int]) -> None:
    wire, expected = stream
    assert data_of(b"".join(event.raw for event in parse(*cut(wire, at)))) == expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=20))
def test_rubbish_is_read_alike_however_it_is_cut(wire: bytes, at: list[int]) -> None:
    assert data_of(*cut(wire, at)) == data_of(wire)


@given(st.lists(st.binary(max_size=40).filter(lambda data: not set(b"\r\n") & set(data)), max_size=5))
def test_what_is_encoded_is_read_back(values: list[bytes]) -> None:
    assert data_of(b"".join(encode_event(value) for value in values)) == values


def test_an_event_is_given_back_with_the_byte_that_ends_it() -> None:
    parser = SseParser(max_event_bytes=100)
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\r") == [Event(b"data: a\r\r", b"a")]
    assert parser.feed(b"data: b\r\n\r") == [Event(b"data: b\r\n\r", b"b")]
    assert parser.feed(b"\ndata: c\n\n") == [Event(b"data: c\n\n", b"c")]


def test_lines_of_data_are_joined_and_other_fields_left_alone() -> None:
    assert data_of(b"event: x\nid: 7\ndata: {\ndata:  1}\nretry\n\n") == [b"{\n 1}"]


def test_comments_alone_are_sent_on_but_are_no_event() -> None:
    assert parse(b": ping\n\n") == [Event(b": ping\n\n", None)]


def test_blank_lines_between_events_are_nothing() -> None:
    assert data_of(b"\n\r\n\ndata: a\n\n\n\n") == [b"a"]


def test_a_byte_order_mark_in_front_is_passed_over() -> None:
    assert data_of(b"\xef", b"\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [b"a", None]


def test_what_no_blank_line_ends_is_no_event() -> None:
    parser = SseParser(max_event_bytes=100)
    assert parser.feed(b"data: a\n\ndata: b\n") == [Event(b"data: a\n\n", b"a")]
    assert parser.incomplete


def test_an_event_may_not_grow_without_bound() -> None:
    parser = SseParser(max_event_bytes=20)
    assert len(parser.feed(b"data: a\n\n" * 10)) == 10
    parser.feed(b"data: 1\n")
    parser.feed(b"data: 2\n")
    with pytest.raises(BadUpstream, match="event is too large"):
        parser.feed(b"data: 3\n")
