"""A user's scorer of completions, in a process of the agent's own.

    python -m serving.regions.servers.scorer package.module:function

Reads one JSON object a line (`request`, `candidate`, `live`), calls `function(request, candidate, live)` and writes
`{"score": 0 to 1}` or `{"error": text}`. What the function prints goes to stderr. A function that hangs or ends its
process costs a pair, not the agent.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from serving.errors import BadUpstream, TimedOut
from serving.references import load_reference

logger = logging.getLogger(__name__)
_MAX_LINE_BYTES: Final = 8 * 1024 * 1024


class ScorerProcess:
    """One scorer, started when first asked and started anew after it failed. Use `close` at the end."""

    def __init__(self, reference: str, *, timeout_s: float) -> None:
        self._reference = reference
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def score(self, pair: dict[str, Any]) -> float:
        """The pair's score, 0 to 1; raises TimedOut or BadUpstream."""
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                process.stdin.write(json.dumps(pair).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as late:
            await self.close()
            expected = f"a score within {self._timeout_s:g} s"
            raise TimedOut(f"scorer {self._reference} did not answer", expected=expected) from late
        except (OSError, ValueError) as broken:
            await self.close()
            raise BadUpstream(f"scorer {self._reference} failed", got=str(broken), expected="a score") from broken
        except BaseException:
            # Cancelled between question and answer: the next question must not read this answer.
            await self.close()
            raise
        if not line:
            await self.close()
            got = f"its process ended with {process.returncode}"
            raise BadUpstream(f"scorer {self._reference} failed", got=got, expected="a score; see the agent's log")
        return self._read(line)

    def _read(self, line: bytes) -> float:
        try:
            answer = json.loads(line)
            score = float(answer["score"])
        except (ValueError, KeyError, TypeError) as broken:
            got = line[:200].decode(errors="replace")
            raise BadUpstream(f"scorer {self._reference} failed", got=got, expected="a score") from broken
        if not 0.0 <= score <= 1.0 or math.isnan(score):
            raise BadUpstream(f"scorer {self._reference} gave no score", got=score, expected="0 to 1")
        return score

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "serving.regions.servers.scorer", self._reference),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MAX_LINE_BYTES,
                start_new_session=True,
            )
        return self._process

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await process.communicate()
        with contextlib.suppress(OSError):
            await process.stdin.wait_closed()


def load_function(reference: str) -> Callable[[Any, str, str], float]:
    function: Callable[[Any, str, str], float] = load_reference(reference)
    return function


def main(arguments: list[str]) -> int:
    # The function may print: its output must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    function = load_function(arguments[0])
    for line in sys.stdin:
        pair = json.loads(line)
        try:
            answer: dict[str, Any] = {"score": float(function(pair["request"], pair["candidate"], pair["live"]))}
        except Exception as failed:
            # Whatever a user's function raises is told, and the next pair is asked.
            answer = {"error": f"{type(failed).__name__}: {failed}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
