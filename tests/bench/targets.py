"""What every benchmark ends with: a table of targets on the terminal and the same as JSON in `build/bench/`."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

QUIET_LOAD_PER_CORE: Final = 0.5
"""Above this load before a run, waits say nothing about the code."""
MET: Final = "met"
NOT_MET: Final = "not met"
NOT_MEASURED: Final = "not measured"
_FOLDER: Final = Path("build/bench")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    name: str
    measured: float
    bound: float | None
    """The most that is allowed, the least where `at_least`; None for a figure that is only shown."""
    unit: str
    status: str
    """met, not met, or not measured: no bound, or a machine too busy to judge it."""
    note: str


def judge(
    name: str,
    measured: float,
    *,
    bound: float | None,
    unit: str,
    note: str = "",
    judged: bool = True,
    at_least: bool = False,
) -> Target:
    if bound is None or not judged:
        status = NOT_MEASURED
    else:
        status = MET if (measured >= bound if at_least else measured <= bound) else NOT_MET
    return Target(name=name, measured=round(measured, 3), bound=bound, unit=unit, status=status, note=note)


def is_quiet() -> bool:
    """Whether the machine has little else to do; ask before the run."""
    return os.getloadavg()[0] <= QUIET_LOAD_PER_CORE * (os.cpu_count() or 1)


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f} before the run"


def finish(benchmark: str, machine: str, targets: Sequence[Target]) -> int:
    """Print the table, write `build/bench/<benchmark>.json`, and return the exit code: 1 if one is not met."""
    print(machine)
    for target in targets:
        bound = "" if target.bound is None else f"{target.bound:g}"
        print(f"{target.name:<48}{target.measured:>11.3f} {target.unit:<10}{bound:<8}{target.status:<14}{target.note}")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    noted = [{**asdict(target), "note": f"{target.note}; {machine}".lstrip("; ")} for target in targets]
    (_FOLDER / f"{benchmark}.json").write_text(json.dumps(noted, indent=2) + "\n")
    return 1 if any(target.status == NOT_MET for target in targets) else 0
