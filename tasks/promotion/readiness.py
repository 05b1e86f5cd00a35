"""Are the regions up? With the local topology: start them when they are not, and end what was started.

The supervisor lives above this layer, so it is asked through its command line.
"""

import subprocess
import sys
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from serving.errors import InvalidInput, RetryableError
from serving.processes import listener, read_records
from serving.regions.places.topology import Topology
from serving.settings import Settings

_ANSWER_S = 2.0


def answers(url: str) -> bool:
    """Whether `GET url` is answered with 200."""
    try:
        with urlopen(url, timeout=_ANSWER_S) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def regions_ready(topology: Topology) -> bool:
    return all(
        answers(f"{region.agent_url}/readyz") and answers(f"{region.gateway_url}/healthz")
        for region in topology.regions
    )


def check_ports(topology: Topology, settings: Settings) -> None:
    """Refuse a local topology whose ports belong to somebody else."""
    if not topology.local:
        return
    ours = {record.pid for record in read_records(settings.root / "run")}
    for region in topology.regions:
        for url in (region.gateway_url, region.agent_url):
            port = urlsplit(url).port or 80
            process = listener(port)
            if process is not None and process.pid not in ours:
                raise InvalidInput(
                    f"port {port} of {region.name} is busy",
                    got=f"{process.name()} (pid {process.pid})",
                    expected="a free port; FLIGHTPATH_PORT_BASE moves all of them",
                )


def ensure_regions(topology: Topology) -> bool:
    """Make sure that every region answers; True if this call started them."""
    if regions_ready(topology):
        return False
    if not topology.local:
        down = [region.name for region in topology.regions if not answers(f"{region.agent_url}/readyz")]
        raise RetryableError("a region does not answer", got=down, expected="every agent's /readyz to answer 200")
    _command_line("up")
    return True


def stop_regions() -> None:
    """End everything that `flightpath up` started from this state root."""
    _command_line("down")


def _command_line(verb: str) -> None:
    done = subprocess.run([sys.executable, "-m", "flightpath", verb], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1].removeprefix("flightpath: ") if lines else f"exit code {done.returncode}"
        raise RetryableError(f"`flightpath {verb}` failed", got=reason, expected="exit code 0")
