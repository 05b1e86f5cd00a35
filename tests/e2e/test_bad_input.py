"""Bad input gets one line (what, got, expected), exit code 1, and leaves nothing behind."""

import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import World, _free_base


@pytest.fixture
def bare(tmp_path: Path) -> World:
    return World(root=tmp_path / "state", port_base=_free_base())


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "vgg"], "unknown recipe, got vgg, expected llama-stdlib | resnet-digits"),
        (["--region", "mars"], "unknown region, got mars, expected us-east | eu-west | asia-pacific"),
        (["--policy", '{"steps_percent": [50, 20]}'], "steps_percent is not usable, got [50, 20]"),
        (["--policy", '{"stepz": 1}'], "policy is malformed"),
        (["--release-id", "../x"], "release id is malformed"),
    ],
)
def test_the_demo_refuses_bad_input_in_one_line(bare: World, arguments: list[str], message: str) -> None:
    done = bare.flightpath("demo", *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"flightpath: {message}")
    assert bare.processes() == []
    assert not list(bare.root.glob("store/**/*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--regions", "[]"], "a release needs a region, got [], expected one or more of us-east, eu-west"),
        (["--recipe", "vgg"], "unknown recipe, got vgg"),
        (["--seed", "-1"], "seed is out of range, got -1"),
    ],
)
def test_pyflyte_run_refuses_bad_input_in_one_line(bare: World, arguments: list[str], message: str) -> None:
    done = bare.pyflyte("run", "workflows/release.py", "release", *arguments)
    assert done.returncode == 1
    assert f"flightpath: {message}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert bare.processes() == []


@pytest.mark.smoke
def test_a_busy_port_is_named_with_its_process(bare: World) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", bare.port_base + 101))
        holder.listen()
        done = bare.flightpath("up")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"flightpath: port {bare.port_base + 101} of eu-west is busy, got ")
    assert "FLIGHTPATH_PORT_BASE" in line
    assert bare.processes() == []


def test_regions_come_up_twice_and_go_down_twice(bare: World) -> None:
    try:
        assert bare.flightpath("up").returncode == 0
        first = {process.pid for process in bare.processes()}
        assert bare.flightpath("up").returncode == 0
        assert {process.pid for process in bare.processes()} == first
        assert bare.flightpath("status").returncode == 0
    finally:
        assert bare.flightpath("down").returncode == 0
    assert bare.processes() == []
    assert bare.flightpath("down").returncode == 0
