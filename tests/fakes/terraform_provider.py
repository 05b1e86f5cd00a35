"""One process of a provider for many runs of Terraform, which asks it for its schemas and to validate.

Each command of Terraform starts a provider of its own: for AWS 700 MB, and more CPU time than what it is asked. A
provider that serves for debugging stays up; Terraform finds it by TF_REATTACH_PROVIDERS and does not hash it either.
It keeps the configuration that it was given last: use one where providers are mocked, or one for each environment.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.models import end_process

_START_S = 60.0
_SILENT = dict.fromkeys(("TF_LOG", "TF_LOG_SDK", "TF_LOG_SDK_PROTO", "TF_LOG_PROVIDER"), "OFF")
"""Serving for debugging it would write every request down, at a fifth of its CPU time."""
_ANNOUNCED = re.compile(r"TF_REATTACH_PROVIDERS='(.*)'")


@contextmanager
def shared_provider(binary: Path, folder: Path, *, cloud: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """The environment that makes Terraform use it.

    `folder`: for its socket and what it prints. `cloud`: variables of the emulated cloud, which the provider reads.
    """
    printed = folder / "provider.out"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [str(binary), "-debug"],
            env={**kept, **(cloud or {}), **_SILENT, "TMPDIR": str(folder)},
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
