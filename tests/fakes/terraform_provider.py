"""One process of a provider for many runs of Terraform, which asks it for its schemas and to validate.

Each run of Terraform starts the provider of its own: for AWS 700 MB, and more CPU time than a mock test needs. A
provider that serves for debugging stays up; Terraform finds it by TF_REATTACH_PROVIDERS and does not hash it either.
All runs share its configuration: use it where providers are mocked, never where regions are made.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.models import end_process

_START_S = 60.0
_ANNOUNCED = re.compile(r"TF_REATTACH_PROVIDERS='(.*)'")


@contextmanager
def shared_provider(binary: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The environment that makes Terraform use it. `folder`: for its socket and what it prints."""
    printed = folder / "provider.out"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [str(binary), "-debug"],
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield {"TF_REATTACH_PROVIDERS": _wait_for(process, printed)}
    finally:
        end_process(process)


def _wait_for(process: subprocess.Popen[bytes], printed: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := _ANNOUNCED.search(printed.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the provider did not say where it serves within {_START_S:g} s: exit {process.poll()}")
