"""The torchrun entry: what command line and environment make of an order, and who hears of progress."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.errors import InvalidInput
from serving.store import ArtifactStore
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.checkpointing import find_latest_verified
from tasks.training.launch.torchrun import EXIT_INVALID, local_folder, main, parse_order
from tests.fakes.tiny_recipe import REFERENCE, STEPS

ARGUMENTS = ["--recipe", "resnet-digits", "--dataset", "file:///d/abc", "--output", "/run", "--seed", "1"]


def test_the_order_comes_from_the_command_line() -> None:
    order = parse_order(ARGUMENTS, {"WORLD_SIZE": "4"})
    assert (order.run_folder, order.dataset_sha256, order.workers, order.resume) == ("/run", "abc", 4, "auto")


def test_the_environment_wins() -> None:
    order = parse_order(ARGUMENTS, {"FLIGHTPATH_CHECKPOINT_URI": "file:///check%20points", "FLIGHTPATH_RESUME": "120"})
    assert (order.run_folder, order.resume) == ("/check points", "120")


@pytest.mark.parametrize("uri", ["", "s3://bucket/run", "file://host/run"])
def test_a_run_folder_without_rename_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match="run folder"):
        local_folder(uri)


@pytest.mark.parametrize("changed", [["--recipe", "no-such"], ["--resume", "sometimes"]])
def test_a_wrong_order_is_one_line_and_exit_code_2(changed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, *changed], {}) == EXIT_INVALID
    said = capsys.readouterr().err
    assert said.startswith("InvalidInput: ")
    assert said.count("\n") == 1


class _Recorder(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.headers["Authorization"], body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Recorder)
    server.received = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_progress_is_posted_with_the_token(server: HTTPServer, tmp_path: Path) -> None:
    dataset = prepare(get_recipe(REFERENCE), 1, ArtifactStore((tmp_path / "store").as_uri()))
    environment = {
        "FLIGHTPATH_PROGRESS_URL": f"http://127.0.0.1:{server.server_port}/progress",
        "FLIGHTPATH_PROGRESS_TOKEN": "t0ken",
    }
    run = tmp_path / "run"
    arguments = ["--recipe", REFERENCE, "--dataset", dataset.uri, "--output", str(run), "--seed", "1"]
    assert main(arguments, environment) == 0
    received: list[tuple[str, dict[str, Any]]] = server.received  # type: ignore[attr-defined]
    assert {header for header, _ in received} == {"Bearer t0ken"}
    assert received[-1][1]["step"] == received[-1][1]["total_steps"] == received[-1][1]["checkpoint_step"] == STEPS
    assert {"loss", "samples_per_s", "time"} <= set(received[-1][1])


def test_nobody_listening_does_not_stop_the_run(tmp_path: Path) -> None:
    dataset = prepare(get_recipe(REFERENCE), 1, ArtifactStore((tmp_path / "store").as_uri()))
    run = tmp_path / "run"
    arguments = ["--recipe", REFERENCE, "--dataset", dataset.uri, "--output", str(run), "--seed", "1"]
    assert main(arguments, {"FLIGHTPATH_PROGRESS_URL": "http://127.0.0.1:9/"}) == 0
    assert find_latest_verified(run).newest is not None
