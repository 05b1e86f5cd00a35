"""Where workers report how far they are: the contract's progress object, by HTTP, with the attempt's own token.

A token is HMAC-SHA256 over the job's uid and the attempt: worth nothing for another job, for an earlier
attempt, or for anything but telling progress. Nothing is kept here: reports come again within seconds.
"""

import hashlib
import hmac
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web

from flightpath_operator.plan import Object

_MAX_BODY: Final = 64 * 1024
_NUMBERS: Final = ("step", "total_steps", "loss", "samples_per_s", "checkpoint_step", "time")
_MAX_SKIPPED: Final = 20
_MAX_RANKS: Final = 4096
_MAX_TEXT: Final = 300


def progress_token(key: bytes, uid: str, attempt: int) -> str:
    return hmac.new(key, f"{uid}:{attempt}".encode(), hashlib.sha256).hexdigest()


class ProgressServer:
    """`POST /v1/progress/{namespace}/{name}`."""

    def __init__(
        self,
        key: bytes,
        *,
        job: Callable[[str, str], Object | None],
        on_progress: Callable[[str, str, Mapping[str, Any]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._job = job
        self._on_progress = on_progress
        self._clock = clock

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/v1/progress/{namespace}/{name}", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        job = self._job(namespace, name)
        # The same answer for an unknown job and a wrong token: a worker cannot find out which jobs there are.
        if not self._is_allowed(request.headers.get("Authorization", ""), job):
            return _error(401, "unauthorized", "token is not of this job's present attempt")
        try:
            report = read_report(json.loads(await request.read()))
        except ValueError as malformed:
            return _error(400, "invalid_input", str(malformed))
        told = {**report, "attempt": _attempt(job), "received_at": self._clock()}
        self._on_progress(namespace, name, told)
        return web.Response(status=204)

    def _is_allowed(self, header: str, job: Object | None) -> bool:
        uid = "" if job is None else job["metadata"]["uid"]
        expected = f"Bearer {progress_token(self._key, uid, _attempt(job))}"
        return hmac.compare_digest(header.encode(), expected.encode()) and job is not None


def _attempt(job: Object | None) -> int:
    return 0 if job is None else int((job.get("status") or {}).get("attempt") or 0)


def read_report(raw: Any) -> dict[str, Any]:
    """The fields that the operator uses; raises ValueError that names what does not hold."""
    if not isinstance(raw, dict) or raw.get("schema_version", 1) != 1:
        raise ValueError("progress must be an object of schema_version 1")
    report: dict[str, Any] = {}
    for name in _NUMBERS:
        value = raw.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, got {value!r:.80}")
        if not math.isfinite(value) and name != "loss":
            raise ValueError(f"{name} must be finite, got {value}")
        # NaN is no JSON; a diverged loss is told as text.
        report[name] = value if math.isfinite(value) else None
    if raw.get("resumed_from_step") is not None:
        report["resumed_from_step"] = int(raw["resumed_from_step"])
    skipped = raw.get("skipped_checkpoints") or []
    if not isinstance(skipped, list) or not all(isinstance(entry, dict) for entry in skipped):
        raise ValueError("skipped_checkpoints must be a list of objects")
    report["skipped_checkpoints"] = [
        {"name": str(entry.get("name"))[:_MAX_TEXT], "reason": str(entry.get("reason"))[:_MAX_TEXT]}
        for entry in skipped[:_MAX_SKIPPED]
    ]
    seconds = raw.get("rank_seconds")
    if isinstance(seconds, dict) and len(seconds) <= _MAX_RANKS:
        report["rank_seconds"] = seconds
    return report


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message, "retryable": False}}, status=status)
