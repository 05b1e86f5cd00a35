"""What the driver costs over Terraform's own commands, and how long a region's plan takes, against an emulated AWS.

    python -m tests.bench.bench_terraform

A plan is made by the driver (a saved plan, its JSON, checks and digests) and by the two commands that give the same
without it: `terraform plan -out` and `terraform show -json`. CPU time counts, of Terraform and its provider too. The
sides alternate; the bare commands run twice a round, and how far those two lie apart is the noise. Then the region is
applied, and plans over it are timed. Writes `build/bench/terraform.json` and exits 1 if a bound is not met.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.terraform import TerraformDriver
from tests.bench.targets import Target, finish, hardware, is_quiet, judge
from tests.fakes.moto import MotoServer
from tests.fakes.terraform_world import VALUES, TerraformWorld, provider_mirror

ROUNDS: Final = 5
APPLIED_ROUNDS: Final = 3
OVERHEAD_BOUND: Final = 1.05
"""Or the noise of this run, where that is more: what cannot be told from nothing is not judged as something."""
PLAN_BOUND_S: Final = 60.0
REGION: Final = "environments/us-east"
_GIVEN: Final[dict[str, Any]] = {**VALUES, "protect": False}
_LOCAL_STATE: Final = 'terraform {\n  backend "local" {}\n}\n'


def cpu_seconds() -> float:
    """Of this process and of every child that has ended; Terraform waits for its provider, so that it is in it."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(act: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    act()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def by_driver(driver: TerraformDriver) -> None:
    plan = driver.plan(_GIVEN)
    if len(plan.document["resource_changes"]) < 100:
        raise RuntimeError(f"the plan is not that of a region: {len(plan.document['resource_changes'])} resources")
    plan.discard()


def by_commands(folder: Path, environment: dict[str, str]) -> None:
    """What stands in a pipeline without the driver; the JSON is parsed, since both sides end with a document."""
    (folder / "bare.tfvars.json").write_text(json.dumps(_GIVEN))
    plan = ["plan", "-json", "-input=false", "-detailed-exitcode", "-var-file=bare.tfvars.json", "-out=bare.tfplan"]
    terraform(folder, environment, plan)
    json.loads(terraform(folder, environment, ["show", "-json", "bare.tfplan"]))


def terraform(folder: Path, environment: dict[str, str], command: list[str]) -> str:
    done = subprocess.run(
        ["terraform", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 2):
        raise RuntimeError(f"terraform {command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def run_rounds(driver: TerraformDriver, environment: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each side, round by round; each round begins with another side."""

    def bare() -> None:
        by_commands(driver.working_dir, environment)

    sides: list[tuple[str, Callable[[], None]]] = [
        ("driver", lambda: by_driver(driver)),
        ("bare", bare),
        ("bare again", bare),
    ]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in sides}
    bare()  # what the first run alone pays: the provider's pages come from the disk
    for number in range(ROUNDS):
        turn = number % len(sides)
        for name, act in sides[turn:] + sides[:turn]:
            measured[name].append(measure(act))
    return measured


def compare(measured: dict[str, list[tuple[float, float]]], applied: list[float]) -> list[Target]:
    cpu = {name: [used for used, _ in rounds] for name, rounds in measured.items()}
    over = statistics.median(mine / bare for mine, bare in zip(cpu["driver"], cpu["bare"], strict=True))
    noise = statistics.median(abs(one / two - 1) for one, two in zip(cpu["bare"], cpu["bare again"], strict=True))
    first = [wall for _, wall in measured["driver"]]
    rounds = f"median of {ROUNDS} interleaved rounds"
    return [
        judge(
            "driver over bare commands, CPU",
            over,
            bound=round(max(OVERHEAD_BOUND, 1 + noise), 3),
            unit="times",
            note=f"paired, {rounds}",
        ),
        judge("bare commands over themselves, CPU", 1 + noise, bound=None, unit="times", note="the noise, paired"),
        judge("driver, CPU", statistics.median(cpu["driver"]), bound=None, unit="s", note=rounds),
        judge("bare commands (peer), CPU", statistics.median(cpu["bare"]), bound=None, unit="s", note=rounds),
        judge("plan of a new region", statistics.median(first), bound=PLAN_BOUND_S, unit="s", note="100 resources"),
        judge(
            "plan over an applied region",
            statistics.median(applied),
            bound=PLAN_BOUND_S,
            unit="s",
            note=f"every resource read, median of {len(applied)}",
        ),
    ]


def run(folder: Path) -> list[Target]:
    with MotoServer(folder / "moto.log") as aws:
        world = TerraformWorld(folder / "world", cloud=aws.environment).for_moto()
        (world.root / REGION / "state_override.tf").write_text(_LOCAL_STATE)
        driver = world.driver(REGION)
        driver.init()
        measured = run_rounds(driver, world.environment)
        driver.apply(driver.plan(_GIVEN))
        applied = [measure(lambda: driver.drift(_GIVEN))[1] for _ in range(APPLIED_ROUNDS)]
        return compare(measured, applied)


def main() -> int:
    if provider_mirror() is None:
        print("not measured: the AWS provider is in no mirror on this machine's disk")
        return 0
    machine = hardware() + ("" if is_quiet() else " (a busy machine: wall times are longer than they need be)")
    with tempfile.TemporaryDirectory() as folder:
        targets = run(Path(folder))
    return finish("terraform", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
