"""OpenAI's completion APIs, read no further than a gateway must: what is asked, and whether an answer ended well.

Model servers say 200 and `[DONE]` to streams that were overloaded, aborted or lost their engine. So an
answer counts only if every choice in it ended for a reason that means an end (`blame.py`). Pure: no clock, no socket.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from serving.asgi import parse_json_object
from serving.errors import BadUpstream, FlightpathError, InvalidInput, Overloaded
from serving.gateway import blame
from serving.gateway.blame import Api
from serving.gateway.sse import DONE, Event

PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
_MOST_TOKENS: Final = 1_000_000_000
"""Of one answer; a larger usage makes no sense."""


class _Asked(BaseModel):
    """The fields of a request that a gateway acts on; pydantic skips the others without building them."""

    model_config = ConfigDict(strict=True)

    model: str
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionRequest:
    """A request, and the bytes to send on."""

    path: str
    model: str
    stream: bool
    usage_wanted: bool
    """Whether the client asked for the usage chunk, which is asked for in any case."""
    body: bytes


def parse_request(path: str, body: bytes) -> CompletionRequest:
    """Read a request's body. It is sent on byte for byte, but a stream's that does not ask for its usage."""
    try:
        asked = _Asked.model_validate_json(body)
    except ValidationError as wrong:
        raise _malformed(wrong) from wrong
    stream = bool(asked.stream)
    usage_wanted = bool((asked.stream_options or {}).get("include_usage"))
    if stream and not usage_wanted:
        body = _ask_for_usage(body, asked)
    return CompletionRequest(path=path, model=asked.model, stream=stream, usage_wanted=usage_wanted, body=body)


def _malformed(wrong: ValidationError) -> InvalidInput:
    first = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "body"
    return InvalidInput(
        f"{field} of the request is malformed", got=first["msg"], expected="JSON with model and perhaps stream"
    )


def _ask_for_usage(body: bytes, asked: _Asked) -> bytes:
    """The body with `stream_options.include_usage`.

    Put in front, so that the client's bytes stay as they are. Only a client that sent stream_options of its own
    gets its body written anew: every value stays, the spacing does not.
    """
    # Asked of what was read, not of the bytes: a key may be spelled with escapes, and the last one of a name counts.
    if "stream_options" not in asked.model_fields_set:
        opening = body.index(b"{") + 1
        return body[:opening] + b'"stream_options":{"include_usage":true},' + body[opening:]
    document = parse_json_object(body)
    document["stream_options"] = {**(asked.stream_options or {}), "include_usage": True}
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer."""

    tokens_in: int
    tokens_out: int


def read_usage(document: dict[str, Any]) -> Usage | None:
    """The answer's usage, None if there is none or it makes no sense."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    counted = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
    if not all(type(count) is int and 0 <= count <= _MOST_TOKENS for count in counted):
        return None
    return Usage(*counted)


def judge_answer(body: bytes) -> Usage | None:
    """The usage of a whole answer; BadUpstream if it has no choices or one of them did not end well."""
    document = _object(body)
    if not (choices := list(_choices(document))):
        raise BadUpstream("answer has no choices", got=body[:80], expected="at least one")
    for choice in choices:
        if blame.of_ending(choice.get("finish_reason")) is not blame.ANSWERED:
            raise _bad_ending(choice.get("finish_reason"))
    return read_usage(document)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one event of a stream means."""

    forward: bool
    """Whether the client gets it."""
    content: bool = False
    """Whether it holds something that was generated, or an ending that is believed."""
    done: bool = False
    """Whether it ends the stream, and well."""
    refusal: int | None = None
    """The HTTP status with which the server blames the request; nothing follows it."""


class StreamJudge:
    """Follows one stream from its first event to its `[DONE]`."""

    def __init__(self, *, usage_wanted: bool) -> None:
        self._usage_wanted = usage_wanted
        self._open: set[Any] = set()
        self._ended: set[Any] = set()
        self._began = False
        self.usage: Usage | None = None

    def see(self, event: Event) -> Seen:
        """What the next event means. BadUpstream if it shows that the answer is not whole."""
        if event.data is None:
            return Seen(forward=True)
        if event.data == DONE:
            if not self._began:
                # What vLLM says on a stream that its queue had no room for.
                raise Overloaded("stream ended before it began", expected="at least one choice")
            if self._open or not self._ended:
                # The mark itself is not quoted: whoever looks for it in what was sent must not find it.
                raise BadUpstream("stream ended without a finish_reason", expected="one for every choice")
            return Seen(forward=True, done=True)
        document = _object(event.data)
        self._began = True
        if document.get("error") is not None:
            return Seen(forward=True, refusal=_blames_request(event.data, document["error"]))
        self.usage = read_usage(document) or self.usage
        content = any([self._follow(choice) for choice in _choices(document)])
        is_usage = document.get("choices") == [] and isinstance(document.get("usage"), dict)
        return Seen(forward=self._usage_wanted or not is_usage, content=content)

    def _follow(self, choice: dict[str, Any]) -> bool:
        """Note a choice's progress; whether it says anything."""
        index, ending = choice.get("index", 0), choice.get("finish_reason")
        if not isinstance(index, int):
            raise BadUpstream("choice is malformed", got=choice, expected="an index")
        if ending is None:
            if index not in self._ended:
                self._open.add(index)
            return _says_something(choice)
        if blame.of_ending(ending) is not blame.ANSWERED:
            raise _bad_ending(ending)
        self._open.discard(index)
        self._ended.add(index)
        return True


def _says_something(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "role")
    return bool(choice.get("text"))


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as broken:
        raise BadUpstream("answer is not JSON", got=data[:80], expected="a JSON object") from broken
    if not isinstance(document, dict):
        raise BadUpstream("answer is not a JSON object", got=data[:80], expected="an object")
    return document


def _choices(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = document.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise BadUpstream("choices are malformed", got=choices, expected="a list of objects")
    yield from choices


def _bad_ending(reason: object) -> BadUpstream:
    return BadUpstream("answer did not end well", got=reason, expected=" | ".join(sorted(blame.ENDINGS)))


def _blames_request(data: bytes, error: object) -> int:
    """The error's code if the request is wrong; raises what the table of blame says of any other."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if type(code) is int else 500
    verdict = blame.of_status(Api.STREAM, status)
    if verdict is blame.REFUSED:
        return status
    got = data[:200].decode(errors="replace")
    if verdict is blame.OVERLOADED:
        raise blame.error_of(verdict, status, "stream has no room", got=got, retry_after=None)
    raise BadUpstream("stream broke off with an error", got=got)


def error_document(error: FlightpathError) -> dict[str, Any]:
    """The error in OpenAI's shape, which has `type` and `param` beside the fields of every other call."""
    fields = error.to_json()["error"]
    kind = "server_error" if error.http_status >= 500 else "invalid_request_error"
    return {"error": {**fields, "type": kind, "param": None}}
