"""Fixtures that every test may use."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.credentials import SigningKey
from tests.fakes import ports

_TEMPORARY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """What is started here leaves its temporary files in a place that ends with the tests: flytekit makes a folder at
    each start, torchrun at each run, and neither removes them. pytest's own stay where they are."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    config.stash[_TEMPORARY] = tempfile.mkdtemp(prefix="fp-test-", dir=os.environ["PYTEST_DEBUG_TEMPROOT"])
    # PostgreSQL runs as somebody else.
    os.chmod(config.stash[_TEMPORARY], 0o711)
    os.environ["TMPDIR"], tempfile.tempdir = config.stash[_TEMPORARY], None


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_TEMPORARY], ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_state_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the checkout's state root."""
    for name in ("TOPOLOGY", "STORE", "PORT_BASE", "PROGRESS_FILE"):
        monkeypatch.delenv(f"FLIGHTPATH_{name}", raising=False)
    monkeypatch.setenv("FLIGHTPATH_HOME", str(tmp_path / "home"))


@pytest.fixture
def signing_key(tmp_path: Path) -> SigningKey:
    return SigningKey.ensure(tmp_path / "keys")


@pytest.fixture
def free_port() -> Callable[[], int]:
    return ports.free_port


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that another socket of this machine listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])
