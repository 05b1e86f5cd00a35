"""Workers' reports: who may make them and what is taken."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from flightpath_operator.runtime.progress_server import ProgressServer, progress_token, read_report

KEY = b"k" * 32
REPORT = {"step": 7, "total_steps": 10, "loss": 0.5, "samples_per_s": 9.0, "checkpoint_step": 5, "time": 1.0}
JOB = {"metadata": {"name": "digits", "namespace": "ml", "uid": "u1"}, "status": {"attempt": 2}}


class Operator:
    def __init__(self) -> None:
        self.heard: list[Mapping[str, Any]] = []
        self.url = ""

    async def post(self, body: Any, token: str, path: str = "/v1/progress/ml/digits") -> int:
        headers = {"Authorization": f"Bearer {token}"}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=data, headers=headers) as answer,
        ):
            return answer.status


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    made = Operator()
    server = ProgressServer(
        KEY,
        job=lambda namespace, name: JOB if (namespace, name) == ("ml", "digits") else None,
        on_progress=lambda namespace, name, report: made.heard.append(report),
        clock=lambda: 42.0,
    )
    async with TestServer(server.app()) as running:
        made.url = str(running.make_url("")).rstrip("/")
        yield made


async def test_a_report_of_the_present_attempt_is_taken(operator: Operator) -> None:
    assert await operator.post(REPORT, progress_token(KEY, "u1", 2)) == 204
    assert operator.heard == [{**REPORT, "skipped_checkpoints": [], "attempt": 2, "received_at": 42.0}]


@pytest.mark.parametrize(
    ("token", "path"),
    [
        (progress_token(KEY, "u1", 1), "/v1/progress/ml/digits"),
        (progress_token(KEY, "u2", 2), "/v1/progress/ml/digits"),
        (progress_token(KEY, "", 0), "/v1/progress/ml/unknown"),
        ("", "/v1/progress/ml/digits"),
    ],
    ids=["older attempt", "other job", "unknown job", "no token"],
)
async def test_any_other_token_is_refused(operator: Operator, token: str, path: str) -> None:
    assert await operator.post(REPORT, token, path) == 401
    assert operator.heard == []


@pytest.mark.parametrize(
    "body",
    [b"{", [], {**REPORT, "step": "7"}, {**REPORT, "time": None}, {**REPORT, "schema_version": 2}],
)
async def test_a_malformed_report_is_refused(operator: Operator, body: Any) -> None:
    assert await operator.post(body, progress_token(KEY, "u1", 2)) == 400
    assert operator.heard == []


async def test_a_report_of_a_megabyte_is_refused(operator: Operator) -> None:
    body = {**REPORT, "skipped_checkpoints": [{"name": "x" * 1_000_000}]}
    assert await operator.post(body, progress_token(KEY, "u1", 2)) == 413


def test_skipped_checkpoints_are_bounded_and_a_diverged_loss_is_no_number() -> None:
    raw = {**REPORT, "loss": float("nan"), "resumed_from_step": 5}
    raw["skipped_checkpoints"] = [{"name": "step-5-a1", "reason": "torn"}] * 50
    report = read_report(raw)
    assert report["loss"] is None
    assert report["resumed_from_step"] == 5
    assert report["skipped_checkpoints"] == [{"name": "step-5-a1", "reason": "torn"}] * 20
