"""What tests of the operator need on an API server: its CRDs, and small objects of its kinds."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml

from tests.fakes.kubernetes.direct import Direct
from tests.fakes.ports import free_port

PROJECT = Path(__file__).resolve().parent.parent.parent
CRDS = PROJECT / "operator" / "crds"


def install_crds(server: Direct) -> None:
    for path in sorted(CRDS.glob("*s.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            server.create(document)


def training_job(name: str = "digits", **spec: Any) -> dict[str, Any]:
    """One worker of an image that need not exist."""
    return {
        "apiVersion": "flightpath.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"image": "trainer:1", "command": ["train"], "workers": 1, **spec},
    }


class OperatorProcess:
    """`python -m flightpath_operator` against an API server. Use `async with`, or `start` it as often as needed."""

    def __init__(self, kubeconfig: Path, log: Path, *, namespace: str = "default", **settings: str) -> None:
        self.metrics_port, self.progress_port = free_port(), free_port()
        mine = {
            "host": "127.0.0.1",
            "namespace": namespace,
            "metrics_port": str(self.metrics_port),
            "progress_port": str(self.progress_port),
            "progress_url": f"http://127.0.0.1:{self.progress_port}",
            "lease_s": "3",
            **settings,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTPATH_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        named = {f"FLIGHTPATH_OPERATOR_{name.upper()}": value for name, value in mine.items()}
        self._environment = {**kept, **named, "KUBECONFIG": str(kubeconfig)}
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flightpath_operator"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Until its caches are filled and it leads."""
        deadline = time.monotonic() + timeout_s
        while "caches are filled" not in self.log:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the operator ended: {self.log}")
            if time.monotonic() > deadline:
                raise TimeoutError(self.log)
            time.sleep(0.02)

    def metrics(self) -> dict[str, float]:
        """Samples by name with labels, as Prometheus reads them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    async def stop(self) -> int:
        """As `end`, in a thread: the API server that it says goodbye to may live in this very loop."""
        return await asyncio.to_thread(self.end)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process is not None and self.process.poll() is None:
            await self.stop()
