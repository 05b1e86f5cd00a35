"""Server-sent events, read as they arrive: any chunking of the same bytes gives the same events.

Written after the WHATWG HTML standard, section "Parsing an event stream": lines end with LF, CR or CRLF, a
blank line ends an event, lines that start with a colon are comments, several `data` lines are joined by
LF. What is not ended by a blank line is no event. Memory is bounded by the size of one event.
"""

import re
from dataclasses import dataclass
from typing import Final

from serving.errors import BadUpstream

CONTENT_TYPE: Final = "text/event-stream"
DONE: Final = b"[DONE]"
"""The data of the event that ends a stream of OpenAI's API."""
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event, or a block of comments alone."""

    raw: bytes
    """What to send on: its lines as they came, the blank one included."""
    data: bytes | None
    """Its `data` lines joined by LF; None if it has none, which a reader must not treat as an event."""


class SseParser:
    """Feed it what arrives; it gives back what is complete."""

    def __init__(self, *, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._scanned = 0
        """Up to here `pending` holds no further line end."""
        self._line_starts = 0
        """Where the present line starts in `pending`."""
        self._data: list[bytes] = []
        self._at_start = True
        self._after_cr = False
        """The last byte fed was a CR that ended a line: an LF that follows belongs to it."""

    @property
    def incomplete(self) -> bool:
        """Whether an event was begun and not ended."""
        return bool(self._pending)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes. BadUpstream if one outgrows its bound."""
        if self._is_plain(chunk):
            return [event for block in chunk.split(b"\n\n")[:-1] for event in self._read_block(block)]
        return self._feed_lines(chunk)

    def _is_plain(self, chunk: bytes) -> bool:
        """Whether the chunk is whole events with LF between lines: nearly every one of a model server's."""
        return (
            not (self._pending or self._at_start or self._after_cr) and chunk.endswith(b"\n\n") and b"\r" not in chunk
        )

    def _read_block(self, block: bytes) -> list[Event]:
        if block.startswith(b"data: ") and b"\n" not in block:
            return [Event(block + b"\n\n", block[6:])]
        return self._feed_lines(block + b"\n\n")

    def _feed_lines(self, chunk: bytes) -> list[Event]:
        if self._after_cr and chunk:
            chunk = self._complete_line_end(chunk)
        self._pending += chunk
        events: list[Event] = []
        while (end := _LINE_END.search(self._pending, self._scanned)) is not None:
            self._take_line(end.start(), end.end(), events)
        self._scanned = len(self._pending)
        if self._scanned > self._max_event_bytes:
            raise BadUpstream(
                "event is too large", got=f"> {self._max_event_bytes} bytes", expected=f"<= {self._max_event_bytes}"
            )
        return events

    def _complete_line_end(self, chunk: bytes) -> bytes:
        """The chunk without an LF that belongs to the CR before it."""
        self._after_cr = False
        if not chunk.startswith(b"\n"):
            return chunk
        if self._pending:
            # Kept, for without it the next line end would complete this one when the bytes are sent on.
            self._pending += b"\n"
            self._line_starts = self._scanned = len(self._pending)
        return chunk[1:]

    def _take_line(self, end: int, next_start: int, events: list[Event]) -> None:
        """One line ends at `end`; the next one starts at `next_start`."""
        line = bytes(self._pending[self._line_starts : end])
        self._after_cr = next_start == len(self._pending) and self._pending[next_start - 1] == 0x0D
        if self._at_start:
            line, self._at_start = line.removeprefix(_BYTE_ORDER_MARK), False
        if line:
            self._read_field(line)
            self._line_starts = self._scanned = next_start
            return
        raw = bytes(self._pending[:next_start])
        data = b"\n".join(self._data) if self._data else None
        if len(raw) > next_start - self._line_starts:
            events.append(Event(raw, data))
        del self._pending[:next_start]
        self._data = []
        self._line_starts = self._scanned = 0

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))


def encode_event(data: bytes) -> bytes:
    """An event of one line of data."""
    return b"data: " + data + b"\n\n"
