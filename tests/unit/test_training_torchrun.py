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
from serving.store_files import StoreFiles
from tasks.data.stage import prepare
from tasks.recipes.finding import get_recipe
from tasks.training.launch.torchrun import EXIT_INVALID, main, parse_order
from tasks.training.loop import run_address
from tests.fakes.runs import look
from tests.fakes.tiny_recipe import REFERENCE, STEPS

ARGUMENTS = ["--recipe", "resnet-digits", "--dataset", "file:///d/abc", "--output", "/run", "--seed", "1"]


def test_the_order_comes_from_the_command_line() -> None:
    order = parse_order(ARGUMENTS, {"WORLD_SIZE": "4"})
    assert (order.run, order.dataset_sha256, order.workers, order.resume) == ("/run", "abc", 4, "auto")


def test_the_environment_wins() -> None:
    order = parse_order(ARGUMENTS, {"FLIGHTPATH_CHECKPOINT_URI": "file:///check%20points", "FLIGHTPATH_RESUME": "120"})
    assert (order.run, order.resume) == ("file:///check%20points", "120")
    assert StoreFiles.open(order.run).folder == Path("/check points")


@pytest.mark.parametrize("address", ["", "file://host/run", "nosuch://bucket/run", "c:run"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match=r"run's address is malformed|store cannot be opened"):
        run_address(address)


def test_a_path_becomes_absolute_and_an_address_stays() -> None:
    assert run_address("runs/ä b") == str(Path("runs/ä b").resolve())
    assert run_address("s3://bucket/runs/one/") == "s3://bucket/runs/one"


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
    assert look(run).newest is not None
