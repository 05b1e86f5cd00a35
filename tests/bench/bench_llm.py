"""What the gateway costs a language model: real vLLM asked directly and through the gateway, streaming.

    python -m tests.bench.bench_llm

One `vllm serve` of a Llama with random parameters, one gateway in front of it, 16 users, all on this machine.
Rounds alternate between the direct and the routed path, and the medians over rounds are compared, for the smallest
size that anyone serves and for that of the demo. The steps of the latter are so short that the gateway takes cores
from the model server's own threads, which wait for one another in every layer.
Writes `build/bench/llm.json` and exits 1 if a bound is not met.
"""

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop

from tests.bench.targets import Target, finish, hardware, judge
from tests.fakes.gateways import GatewayProcess, backend, route
from tests.fakes.language_models import VllmServer, byte_tokenizer, write_llama
from tests.fakes.ports import free_port

MODEL: Final = "bench"
CONCURRENCY: Final = 16
ROUNDS: Final = 5
MIN_RATIO: Final = 0.95
"""What a gateway may cost of the model server's throughput, on a machine whose cores both share."""


_TAIL_BYTES: Final = 4096
_COMPLETION_TOKENS: Final = re.compile(rb'"completion_tokens":(\d+)')


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model, and how much is asked of it in a round."""

    name: str
    hidden: int
    layers: int
    tokens: int
    """Of each answer."""
    requests_per_user: int


SIZES: Final = (
    Size(name="95 M parameters", hidden=768, layers=16, tokens=64, requests_per_user=1),
    Size(name="5 M parameters", hidden=256, layers=8, tokens=128, requests_per_user=3),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One path, all users."""

    tokens_per_s: float
    ttft_p50_ms: float
    cpu_us_per_token: float
    """CPU time of the gateway; 0 on the direct path."""


def completion_request(tokens: int) -> bytes:
    """Letters only: every token is a character of its own, and so an event with content."""
    letters = byte_tokenizer().convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    document = {
        "model": MODEL,
        "prompt": "once upon a time",
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "allowed_token_ids": letters,
    }
    body = json.dumps(document).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def use(port: int, size: Size, requests: int) -> list[float]:
    """One user: seconds to the first token of each request. An answer with too few tokens is an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
    request, first_tokens = completion_request(size.tokens), []
    for _ in range(requests):
        started, begun, tail = time.perf_counter(), False, b""
        writer.write(request)
        while not tail.endswith(b"0\r\n\r\n"):
            chunk = await reader.read(65536)
            if not chunk:
                raise RuntimeError("connection ended in mid-answer")
            tail = (tail + chunk)[-_TAIL_BYTES:]
            if not begun and b'"text":"' in tail:
                begun = True
                first_tokens.append(time.perf_counter() - started)
        # Events cannot be counted: a server that falls behind puts several tokens into one.
        counted = _COMPLETION_TOKENS.search(tail)
        if counted is None or int(counted[1]) != size.tokens or b"[DONE]" not in tail:
            raise RuntimeError(f"answer does not end with {size.tokens} tokens: {tail!r}")
    writer.close()
    return first_tokens


async def measure(port: int, size: Size, pid: int | None) -> Round:
    process = None if pid is None else psutil.Process(pid)
    before, started = 0.0 if process is None else sum(process.cpu_times()[:2]), time.perf_counter()
    runs = await asyncio.gather(*(use(port, size, size.requests_per_user) for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - started
    tokens = CONCURRENCY * size.requests_per_user * size.tokens
    return Round(
        tokens_per_s=tokens / seconds,
        ttft_p50_ms=1000 * statistics.median(first for run in runs for first in run),
        cpu_us_per_token=0.0 if process is None else 1e6 * (sum(process.cpu_times()[:2]) - before) / tokens,
    )


async def run_rounds(
    size: Size, vllm_port: int, gateway_port: int, gateway_pid: int
) -> tuple[list[Round], list[Round]]:
    """Alternate direct and routed rounds, which of the two goes first too."""
    await asyncio.gather(*(use(port, size, 1) for port in (vllm_port, gateway_port) for _ in range(CONCURRENCY)))
    direct: list[Round] = []
    routed: list[Round] = []
    for number in range(ROUNDS):
        for path in ("direct", "routed") if number % 2 == 0 else ("routed", "direct"):
            if path == "direct":
                direct.append(await measure(vllm_port, size, None))
            else:
                routed.append(await measure(gateway_port, size, gateway_pid))
    return direct, routed


def compare(size: Size, direct: list[Round], routed: list[Round]) -> list[Target]:
    """Medians over rounds."""

    def median(rounds: list[Round], name: str) -> float:
        return float(statistics.median(getattr(measured, name) for measured in rounds))

    ratio = median(routed, "tokens_per_s") / median(direct, "tokens_per_s")
    rows = [
        ("tokens/s direct", median(direct, "tokens_per_s"), "tokens/s", f"{size.tokens} tokens each, streamed"),
        ("tokens/s through the gateway", median(routed, "tokens_per_s"), "tokens/s", ""),
        ("TTFT p50 direct", median(direct, "ttft_p50_ms"), "ms", ""),
        ("TTFT p50 through the gateway", median(routed, "ttft_p50_ms"), "ms", ""),
        ("gateway CPU per token", median(routed, "cpu_us_per_token"), "us", "gateway process alone"),
    ]
    return [
        judge(
            f"routed / direct at concurrency {CONCURRENCY}, {size.name}",
            ratio,
            bound=MIN_RATIO,
            at_least=True,
            unit="share",
            note="at least; medians of interleaved rounds; client, gateway and vLLM share the cores of this machine",
        ),
        *(judge(f"{name}, {size.name}", value, bound=None, unit=unit, note=note) for name, value, unit, note in rows),
    ]


def bench(size: Size, root: Path, stack: ExitStack) -> list[Target]:
    """Start the real processes, route the model, measure."""
    write_llama(root / "model", hidden=size.hidden, layers=size.layers)
    port = free_port()
    vllm = VllmServer(root / "model", MODEL, port, root / "vllm.log")
    stack.callback(vllm.end)
    vllm.wait()
    gateway = GatewayProcess(root / "home")
    stack.callback(gateway.end)
    process = gateway.start()
    put_route(gateway, vllm.url)
    return compare(size, *uvloop.run(run_rounds(size, port, gateway.port, process.pid)))


def put_route(gateway: GatewayProcess, url: str) -> None:
    document = route(backend("rel-1@us-east", url, weight=100), model=MODEL, classes=[])
    request = urllib.request.Request(
        f"{gateway.url}/admin/v1/routes/{MODEL}",
        data=json.dumps(document).encode(),
        headers=gateway.admin_headers,
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


def main() -> int:
    machine = hardware()
    targets = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
            targets += bench(size, Path(root), stack)
    return finish("llm", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
