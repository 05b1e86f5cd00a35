"""One release of the demo: `pyflyte run` and its users, each in a process of its own."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flightpath.local import traffic
from flightpath.local.state import StateRoot
from flightpath.local.view import ProgressFile, ReleaseView
from serving.errors import FlightpathError, PermanentError
from serving.files import canonical_json

_PROJECT = Path(__file__).resolve().parent.parent.parent
_STOP_S = 90.0
"""An answer of a language model that was begun is waited for."""
_ABORT_S = 60.0
_CORES_FOR_TWO = 4
"""From this many cores on, releases train side by side; below, the next begins when the one before is promoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseOrder:
    """What is released, and under which traffic."""

    recipe: str
    model: str
    release_id: str
    seed: int
    regions: list[str]
    policy: str
    """PromotionPolicy as JSON or a path to it; empty for the default."""
    rate_per_s: float
    """Requests per second that the users of each region send; 0: 40 for images, 0.5 for text."""

    def scratch(self, root: StateRoot) -> Path:
        return root.path / "demo" / self.release_id

    def traffic_report(self, root: StateRoot) -> Path:
        return self.scratch(root) / "traffic.json"


class ReleaseProcess:
    """A release under way, with its users."""

    def __init__(self, order: ReleaseOrder, root: StateRoot) -> None:
        self.order = order
        self.view = ReleaseView(name=order.release_id)
        self._root = root
        scratch = order.scratch(root)
        scratch.mkdir(parents=True, exist_ok=True)
        root.logs.mkdir(parents=True, exist_ok=True)
        order.traffic_report(root).unlink(missing_ok=True)
        self._progress_path = scratch / "progress.jsonl"
        self._progress_path.unlink(missing_ok=True)
        self.progress = ProgressFile(self._progress_path)
        self._log = root.logs / f"release-{order.release_id}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._users: subprocess.Popen[bytes] | None = None

    def begin_users(self) -> None:
        """Traffic from now on, until the release has ended."""
        order = self.order
        command = [sys.executable, "-m", "flightpath.local.traffic", "--model", order.model]
        command += ["--release-id", order.release_id, "--report", str(order.traffic_report(self._root))]
        command += ["--rate", str(order.rate_per_s)]
        self._users = self._spawn(command, self._root.logs / "traffic.log", append=True)

    def end_users(self) -> None:
        """End the traffic, with its last answers counted."""
        if self._users is not None:
            _end(self._users)

    def begin(self) -> None:
        """Start `pyflyte run`, once."""
        if self._process is not None:
            return
        order = self.order
        command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run"]
        command += ["workflows/release.py", "release", "--recipe", order.recipe, "--release_id", order.release_id]
        command += ["--seed", str(order.seed), "--regions", canonical_json(order.regions).decode()]
        if order.policy:
            command += ["--policy", order.policy]
        self._process = self._spawn(command, self._log, append=False)

    def _spawn(self, command: list[str], log: Path, *, append: bool) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "FLIGHTPATH_PROGRESS_FILE": str(self._progress_path),
            "FLIGHTPATH_HOME": str(self._root.path),
            # A recipe of the user's own is found where the user is.
            "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])),
        }
        with log.open("ab" if append else "wb") as output:
            return subprocess.Popen(
                command, cwd=_PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def leaves_room(self) -> bool:
        """Whether another release may begin beside this one."""
        return self.ended or "promotion" in self.view.stages or (os.cpu_count() or 1) >= _CORES_FOR_TWO

    def count_users(self) -> None:
        sent, failed, _ = traffic.totals(self.order.traffic_report(self._root))
        self.view.traffic = (
            f"users: {sent} requests, {failed} failed" if sent else "users: waiting for the first region"
        )

    def abort(self) -> None:
        """Ctrl-C for the release: its connector takes the promotion back, which takes a moment."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=_ABORT_S)

    @property
    def failure(self) -> FlightpathError | None:
        """Why it failed, by the line that a stage printed; None when it went live."""
        if self._process is None or self._process.returncode == 0:
            return None
        for line in reversed(self._log.read_text(errors="replace").splitlines()):
            if line.startswith("flightpath: "):
                return PermanentError(line.removeprefix("flightpath: "))
        return PermanentError(
            f"release {self.order.release_id} failed",
            got=f"exit code {self._process.returncode}",
            expected=f"0; see {self._log}",
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
