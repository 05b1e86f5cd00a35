"""What vLLM 0.32 says on the wire, event by event, and every way in which it was seen to break off."""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

from serving.gateway.sse import encode_event
from tests.fakes.faulty_backend import Behaviour, Handler

Step = bytes | Callable[[Handler], None]
"""Bytes are sent as one chunk; a function does what it likes."""
DONE = encode_event(b"[DONE]")
USAGE = {"prompt_tokens": 21, "total_tokens": 25, "completion_tokens": 4}


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return encode_event(json.dumps({**head, "choices": choices, **more}, separators=(",", ":")).encode())


def role() -> bytes:
    """The first chunk of a chat: no token yet."""
    delta = {"role": "assistant", "content": ""}
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], prompt_token_ids=None)


def token(text: str = "a", *, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None, "token_ids": None}
    return _chunk([choice])


def finish(reason: str = "stop", *, text: str = "", index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
    return _chunk([{**choice, "stop_reason": None, "token_ids": None}])


def usage() -> bytes:
    return _chunk([], usage=USAGE, system_fingerprint="vllm-0.32.0")


def error(code: int = 500) -> bytes:
    body = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": code}
    return encode_event(json.dumps({"error": body}).encode())


def whole(*texts: str) -> tuple[bytes, ...]:
    """A stream as it should be."""
    return (role(), *(token(text) for text in texts), finish("length"), usage(), DONE)


def stream(*steps: Step) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.start_stream()
        for step in steps:
            if isinstance(step, bytes):
                handler.send_chunk(step)
            else:
                step(handler)
        if not handler.close_connection:
            handler.end_stream()

    return behave


def cut(handler: Handler) -> None:
    """The process dies: no end of the body."""
    handler.close_connection = True


def wait(event: threading.Event) -> Step:
    def behave(handler: Handler) -> None:
        assert event.wait(timeout=20)

    return behave


def until_client_leaves(left: threading.Event) -> Step:
    """Blocks until the other side has closed the connection, as vLLM does between tokens."""

    def behave(handler: Handler) -> None:
        handler.connection.settimeout(20)
        if handler.connection.recv(1) == b"":
            left.set()
        cut(handler)

    return behave


def answer(*, reason: str = "stop", choices: int = 1, text: str = "hello") -> Behaviour:
    """An answer that is not streamed, as both APIs have it."""
    message = {"role": "assistant", "content": text}
    listed = [{"index": n, "message": message, "text": text, "finish_reason": reason} for n in range(choices)]
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": "tiny", "choices": listed, "usage": USAGE}
    return lambda handler: handler.reply(200, json.dumps(body).encode())


def data_of(wire: bytes) -> list[bytes]:
    """The data of each event of a whole answer."""
    return [event.removeprefix(b"data: ") for event in wire.split(b"\n\n") if event]


def texts_of(events: Iterable[bytes]) -> list[str]:
    """What the events say, empty ones left out."""
    documents = [json.loads(event) for event in events if event != b"[DONE]"]
    choices = [choice for document in documents for choice in document.get("choices", [])]
    return [text for choice in choices if (text := choice["delta"]["content"])]
