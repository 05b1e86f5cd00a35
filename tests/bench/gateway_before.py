"""This gateway against that of an earlier commit: CPU time for the same work, in alternating rounds of one run.

The earlier commit is checked out beside this one (`git worktree`) and runs with the same Python and libraries. Behind
both is a stub in the client's own process that answers at once, so that neither waits for a model.
"""

import asyncio
import json
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.targets import Target, judge
from tests.fakes.gateways import GatewayProcess, backend, route
from tests.fakes.ports import free_port

BEFORE: Final = "02c704f"
"""The commit before attempts were judged by one table."""
MAX_RATIO: Final = 1.15
ROUNDS: Final = 25
"""Many and short: on a shared machine the next minute is another machine."""
_ROOT: Final = Path(__file__).resolve().parents[2]
_TOKENS: Final = 64
_MODEL: Final = "digits"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is asked again and again."""

    name: str
    path: str
    body: dict[str, object]
    concurrency: int
    requests: int


_TENSOR: Final = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [column / 64 for column in range(64)]}
_PROMPT: Final = {"model": _MODEL, "prompt": "once upon a time", "max_tokens": _TOKENS}
_INFER: Final = f"/v2/models/{_MODEL}/infer"
WORKS: Final = (
    Work(name="infer, concurrency 1", path=_INFER, body={"inputs": [_TENSOR]}, concurrency=1, requests=240),
    Work(name="infer, concurrency 16", path=_INFER, body={"inputs": [_TENSOR]}, concurrency=16, requests=480),
    Work(name="completion, concurrency 16", path="/v1/completions", body=_PROMPT, concurrency=16, requests=320),
    Work(
        name=f"stream of {_TOKENS} tokens, concurrency 16",
        path="/v1/completions",
        body={**_PROMPT, "stream": True},
        concurrency=16,
        requests=48,
    ),
)


def _answer(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _chunk(document: object) -> bytes:
    data = document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
    event = b"data: %s\n\n" % data
    return b"%x\r\n%s\r\n" % (len(event), event)


_SCORES: Final = [index / 7 for index in range(10)]
_OUTPUT: Final = {"name": "logits", "shape": [1, 10], "datatype": "FP32", "data": _SCORES}
_INFER_ANSWER: Final = _answer({"model_name": _MODEL, "model_version": "1", "outputs": [_OUTPUT]})
_HEAD: Final = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": _MODEL}
_USAGE: Final = {"prompt_tokens": 4, "completion_tokens": _TOKENS, "total_tokens": 4 + _TOKENS}
_WHOLE: Final = _answer(
    {**_HEAD, "choices": [{"index": 0, "text": "x" * _TOKENS, "finish_reason": "length"}], "usage": _USAGE}
)
_TOKEN: Final = _chunk({**_HEAD, "choices": [{"index": 0, "text": "x", "finish_reason": None}]})
_LAST: Final = (
    _chunk({**_HEAD, "choices": [{"index": 0, "text": "x", "finish_reason": "length"}]})
    + _chunk({**_HEAD, "choices": [], "usage": _USAGE})
    + _chunk(b"[DONE]")
    + b"0\r\n\r\n"
)
_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def _stub(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if b"/infer" in head[:64]:
                writer.write(_INFER_ANSWER)
            elif b'"stream": true' not in body:
                writer.write(_WHOLE)
            else:
                writer.write(_STREAM_HEAD)
                for _ in range(_TOKENS - 1):
                    writer.write(_TOKEN)
                    await asyncio.sleep(0)
                writer.write(_LAST)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        writer.close()


async def _use(port: int, work: Work, requests: int) -> None:
    """One client on one connection."""
    body = json.dumps(work.body).encode()
    head = f"POST {work.path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
    for _ in range(requests):
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode(errors="replace"))
        if work.body.get("stream"):
            while not answer.endswith(b"0\r\n\r\n"):
                answer = answer[-8:] + await reader.read(65536)
        else:
            length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
    writer.close()


def _cpu_s(pid: int) -> float:
    """CPU time of all threads, from the scheduler: `cpu_times` counts in hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _measure(port: int, pid: int, work: Work) -> float:
    """Microseconds of CPU for each request."""
    each = work.requests // work.concurrency
    before = _cpu_s(pid)
    await asyncio.gather(*(_use(port, work, each) for _ in range(work.concurrency)))
    return 1e6 * (_cpu_s(pid) - before) / (each * work.concurrency)


async def _run(sides: list[tuple[int, int]], stub_port: int) -> list[tuple[Work, list[float], list[float]]]:
    """Figures of both sides, each (port, pid), in rounds that alternate which one begins."""
    server = await asyncio.start_server(_stub, "127.0.0.1", stub_port)
    found = []
    async with server:
        for work in WORKS:
            figures: list[list[float]] = [[], []]
            for round_number in range(-1, ROUNDS):
                for side in (0, 1) if round_number % 2 else (1, 0):
                    figure = await _measure(*sides[side], work)
                    if round_number >= 0:
                        figures[side].append(figure)
            found.append((work, *figures))
    return [(work, before, now) for work, before, now in found]


def _check_out(revision: str, root: Path, stack: ExitStack) -> Path | None:
    """A checkout of the revision; None without git, or without it."""
    folder = root / "before"
    git: Callable[..., subprocess.CompletedProcess[bytes]] = lambda *words: subprocess.run(  # noqa: E731
        ["git", "-C", str(_ROOT), *words], capture_output=True, check=False
    )
    try:
        if git("worktree", "add", "--detach", "--force", str(folder), revision).returncode != 0:
            return None
    except OSError:
        return None
    stack.callback(git, "worktree", "remove", "--force", str(folder))
    return folder


def _put(gateway: GatewayProcess, url: str) -> None:
    document = {name: value for name, value in route(backend("rel-1@us-east", url, weight=100)).items()}
    # The name of this field changed; both sides take a route without it.
    del document["mirror"]
    request = urllib.request.Request(
        f"{gateway.url}/admin/v1/routes/{_MODEL}",
        data=json.dumps(document).encode(),
        headers=gateway.admin_headers,
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


def against_before(revision: str, root: Path, stack: ExitStack) -> list[Target]:
    """CPU for each kind of request, as a ratio to what it was."""
    folder = _check_out(revision, root, stack)
    if folder is None:
        note = f"there is no git here, or no commit {revision}"
        return [
            judge(f"CPU per request over the commit before: {work.name}", 0.0, bound=None, unit="ratio", note=note)
            for work in WORKS
        ]
    stub_port, sides = free_port(), []
    for name, code in (("before", folder), ("now", None)):
        gateway = GatewayProcess(root / f"home-{name}", code=code)
        stack.callback(gateway.end)
        process = gateway.start()
        _put(gateway, f"http://127.0.0.1:{stub_port}")
        sides.append((gateway.port, process.pid))
    started, targets = time.perf_counter(), []
    for work, before, now in uvloop.run(_run(sides, stub_port)):
        before_us, now_us = statistics.median(before), statistics.median(now)
        targets.append(
            judge(
                f"CPU per request over the commit before: {work.name}",
                now_us / before_us,
                bound=MAX_RATIO,
                unit="ratio",
                note=f"{revision}: {before_us:.0f} us, now {now_us:.0f} us; medians of {ROUNDS} interleaved rounds",
            )
        )
    print(f"compared with {revision} in {time.perf_counter() - started:.0f} s")
    return targets
