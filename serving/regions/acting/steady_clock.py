"""A clock for deadlines that are kept on disk: it goes on evenly whatever happens to the machine's wall clock.

Steps, leases and standbys must survive an agent's death, so they are seconds since the epoch. Told by the wall clock
they would end an hour early or late whenever that is set; told by this one they do not: it starts from the wall clock
once, and counts from then on by the kernel's clock since boot.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from serving.files import write_atomically

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Seconds since the epoch, as the wall clock had it when the first agent after the machine's start read it.

    `file` carries it over an agent's death and, with `save`, over a restart of the machine: it never goes back.
    """

    def __init__(
        self,
        file: Path,
        *,
        wall: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = _since_boot,
        boot_id: Callable[[], str] = _BOOT_ID.read_text,
    ) -> None:
        self._file = file
        self._since_boot = since_boot
        self._boot_id = boot_id().strip()
        known = _read(file)
        if known.get("boot_id") == self._boot_id:
            self._booted_at = float(known["booted_at"])
        else:
            self._booted_at = max(wall(), float(known.get("told", 0.0))) - since_boot()

    def __call__(self) -> float:
        return self._booted_at + self._since_boot()

    def save(self) -> None:
        """Keep what it tells now; raises OSError."""
        told = {"boot_id": self._boot_id, "booted_at": self._booted_at, "told": self()}
        write_atomically(self._file, json.dumps(told).encode())


def _read(file: Path) -> dict[str, float | str]:
    """What an earlier agent kept; nothing if it was cut off or is not there."""
    try:
        known = json.loads(file.read_bytes())
        return {"boot_id": str(known["boot_id"]), "booted_at": float(known["booted_at"]), "told": float(known["told"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
