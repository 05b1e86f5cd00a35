"""A log that takes nothing, as on a full disk: whoever writes it starts, serves and ends all the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes.gateways import wait_for
from tests.fakes.models import VARIANT, write_bundle
from tests.fakes.ports import free_port
from tests.fakes.regions import MODEL, make_topology, write_topology

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@contextmanager
def with_a_full_log(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with open("/dev/full", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, **environment}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def serves_and_ends(process: subprocess.Popen[bytes], url: str) -> None:
    wait_for(lambda: answers(url), timeout_s=90)
    assert answers(url)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


def test_a_model_server(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", tmp_path / "keys", seed=0, name=MODEL)
    port = free_port()
    command = ["serving.engines.server", "--model", MODEL, "--version", "1", "--bundle", str(tmp_path / "bundle")]
    with with_a_full_log([*command, "--variant", VARIANT, "--port", str(port)], {}) as server:
        serves_and_ends(server, f"http://127.0.0.1:{port}/v2/health/ready")


@pytest.mark.parametrize("role", ["gateway", "agent"])
def test_a_gateway_and_an_agent(tmp_path: Path, role: str) -> None:
    topology = make_topology(tmp_path, "home")
    environment = {"FLIGHTPATH_TOPOLOGY": str(write_topology(tmp_path, topology))}
    module = "serving.gateway.app" if role == "gateway" else "serving.regions.agent"
    url = topology.home.gateway_url if role == "gateway" else topology.home.agent_url
    with with_a_full_log([module, "--region", "home"], environment) as process:
        serves_and_ends(process, f"{url}/healthz")


def test_a_gateway_takes_over_from_another_and_serves(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    environment = {"FLIGHTPATH_TOPOLOGY": str(write_topology(tmp_path, topology))}
    command, url = ["serving.gateway.app", "--region", "home"], f"{topology.home.gateway_url}/healthz"
    with ExitStack() as stack:
        first = stack.enter_context(with_a_full_log(command, environment))
        wait_for(lambda: answers(url), timeout_s=90)
        second = stack.enter_context(with_a_full_log(command, environment))
        first.wait(timeout=90)
        assert answers(url)
        assert second.poll() is None
