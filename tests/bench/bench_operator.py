"""How fast the operator is, and what it costs: against Kopf's own handlers and against the least that could be done.

    python -m tests.bench.bench_operator

Always on the test API server, and on a real control plane too where KUBECONFIG_REAL names one that has the CRDs.
Bursts of the operator, of peers made of Kopf's standard handlers and of a floor (the same writes without any
decision) take turns on one server; medians over rounds are compared. Writes `build/bench/operator.json` and exits 1
if a bound is not met.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.bench.operator_recipe import learn, save_recipe
from tests.bench.operator_world import PeerProcess, Server, World, at_most, test_server, world
from tests.bench.targets import Target, finish, hardware, is_quiet, judge
from tests.fakes.operator import OperatorProcess

SINGLES: Final = 30
BURST: Final = 200
ROUNDS: Final = 3
LIVE: Final = 1000
IDLE_S: Final = 30.0
AFTERWARDS_S: Final = 2.0
"""In which an arm tells in statuses of what it has made: that is CPU time of the burst too."""
ARMS: Final = ("operator", "kopf", "kopf-async", "floor")
MIB: Final = 2**20
CALLS: Final = 32
"""Requests under way at once: the operator's own default, and the same for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One burst, or the medians of several."""

    p95_ms: float
    """From a job's order to its pod."""
    cpu_ms: float
    """CPU time of the arm's process per job."""


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


async def singles(there: World, prefix: str) -> tuple[list[float], list[float]]:
    """One job after the other: seconds to its pod, and from a pod's status to the job's."""
    to_pod, to_status = [], []
    for number in range(SINGLES):
        name = f"{prefix}-{number}"
        began = await there.order(name)
        await there.until(lambda name=name: name in there.pod_at)  # type: ignore[misc]
        to_pod.append(there.pod_at[name] - began)
        await there.until(lambda name=name: (name, "Pending") in there.phase_at)  # type: ignore[misc]
        ran = await there.run_pod(name)
        await there.until(lambda name=name: (name, "Running") in there.phase_at)  # type: ignore[misc]
        to_status.append(there.phase_at[name, "Running"] - ran)
    return to_pod, to_status


async def burst(there: World, prefix: str, *, peer: bool) -> list[float]:
    """Many jobs at once: seconds from each one's order to its pod."""
    names = [f"{prefix}-{number}" for number in range(BURST)]
    began = await at_most(CALLS, [there.order(name, peer=peer) for name in names])
    await there.until(lambda: all(name in there.pod_at for name in names))
    return [there.pod_at[name] - at for name, at in zip(names, began, strict=True)]


async def one_round(server: Server, arm: OperatorProcess | PeerProcess, name: str) -> Round:
    """A burst for an arm that is started for it and ended after it."""
    async with world(server, f"bench-{name}") as there:
        arm.start()
        try:
            await asyncio.to_thread(arm.wait_until_ready)
            await burst_of_one(there, f"{name}-warm", peer=name.startswith("kopf"))
            process = psutil.Process(arm.process.pid)  # type: ignore[union-attr]
            before = cpu_seconds(process)
            times = await burst(there, name, peer=name.startswith("kopf"))
            await asyncio.sleep(AFTERWARDS_S)
            cpu_ms = 1000 * (cpu_seconds(process) - before) / BURST
            return Round(p95_ms=1000 * p95(times), cpu_ms=cpu_ms)
        finally:
            await asyncio.to_thread(arm.end)


async def burst_of_one(there: World, name: str, *, peer: bool) -> None:
    """The arm's watch is open once it has answered."""
    await there.order(name, peer=peer)
    await there.until(lambda: name in there.pod_at)


async def bursts(server: Server, root: Path, recipe: Path) -> dict[str, Round]:
    """Medians of each arm's rounds, which take turns."""
    found: dict[str, list[Round]] = {name: [] for name in ARMS}
    for turn in range(ROUNDS):
        for name in ARMS:
            log = root / f"{server.name}-{name}-{turn}.log"
            arm = (
                OperatorProcess(server.kubeconfig, log)
                if name == "operator"
                else PeerProcess(name, server.kubeconfig, recipe, log)
            )
            found[name].append(await one_round(server, arm, f"{name}-{turn}"))
    return {
        name: Round(
            p95_ms=statistics.median(each.p95_ms for each in rounds),
            cpu_ms=statistics.median(each.cpu_ms for each in rounds),
        )
        for name, rounds in found.items()
    }


async def run_singles(server: Server, root: Path, *, quiet: bool) -> list[Target]:
    operator = OperatorProcess(server.kubeconfig, root / "singles.log")
    async with world(server, "bench-singles") as there, operator:
        await asyncio.to_thread(operator.wait_until_ready)
        await burst_of_one(there, "warm", peer=False)
        to_pod, to_status = await singles(there, "one")
        await asyncio.to_thread(operator.end)
    note = f"one after the other, {SINGLES} jobs"
    return [
        _latency("TrainingJob to its pod, p50", to_pod, 100.0, note, quiet),
        _latency("pod status to TrainingJob status, p50", to_status, 200.0, note, quiet),
    ]


def _latency(name: str, seconds: list[float], bound: float, note: str, quiet: bool) -> Target:
    told = f"{note}; p95 {1000 * p95(seconds):.0f} ms"
    return judge(name, 1000 * statistics.median(seconds), bound=bound, unit="ms", note=told, judged=quiet)


async def run_bursts(server: Server, root: Path, recipe: Path, writes: dict[str, int]) -> list[Target]:
    rounds = await bursts(server, root, recipe)
    ours, kopf, best, floor = (rounds[name] for name in ARMS)
    p95s = ", ".join(f"{name} {each.p95_ms:.0f} ms" for name, each in rounds.items())
    cpus = ", ".join(f"{name} {each.cpu_ms:.1f} ms" for name, each in rounds.items())
    counted = ", ".join(f"{number} {name}" for name, number in writes.items())
    label = f"{BURST} jobs at once"
    return [
        judge(f"{label}, p95 to pod", ours.p95_ms, bound=None, unit="ms", note=f"median of {ROUNDS} rounds"),
        judge(f"{label}, p95 over Kopf's handlers", ours.p95_ms / kopf.p95_ms, bound=0.3, unit="x", note=p95s),
        judge(f"{label}, p95 over Kopf's at best", ours.p95_ms / best.p95_ms, bound=None, unit="x", note="kopf-async"),
        judge(f"{label}, p95 over the floor", ours.p95_ms / floor.p95_ms, bound=1.5, unit="x", note=counted),
        judge(f"{label}, CPU per job", ours.cpu_ms, bound=None, unit="ms", note=cpus),
    ]


async def run_live(server: Server, root: Path, *, quiet: bool) -> list[Target]:
    """A thousand jobs that run: what it costs to watch them, and to begin anew with them."""
    operator = OperatorProcess(server.kubeconfig, root / "live.log")
    async with world(server, "bench-live") as there, operator:
        await asyncio.to_thread(operator.wait_until_ready)
        names = [f"live-{number}" for number in range(LIVE)]
        await at_most(CALLS, [there.order(name) for name in names])
        await there.until(lambda: all(name in there.pod_at for name in names))
        await at_most(CALLS, [there.run_pod(name) for name in names])
        await there.until(lambda: all((name, "Running") in there.phase_at for name in names))
        await _quiet(operator)
        process = psutil.Process(operator.process.pid)  # type: ignore[union-attr]
        cpu = await idle_cpu(process)
        memory = process.memory_info().rss / MIB
        before = await there.versions()
        await asyncio.to_thread(operator.end)
        restarted = time.perf_counter()
        operator.start()
        await there.order("after")
        await there.until(lambda: "after" in there.pod_at)
        took = there.pod_at["after"] - restarted
        after = await there.versions()
        to_pod, to_status = await singles(there, "more")
        await asyncio.to_thread(operator.end)
    changed = sum(after.get(uid) != version for uid, version in before.items())
    note = f"with {LIVE} jobs live"
    return [
        judge(f"CPU, idle {note}", cpu, bound=5.0, unit="% core", note=f"over {IDLE_S:.0f} s"),
        judge(f"memory {note}", memory, bound=300.0, unit="MiB", note="resident set"),
        judge(f"restart {note}: new job's pod", took, bound=5.0, unit="s", note="from process start", judged=quiet),
        judge(f"restart {note}: children touched", changed, bound=0.0, unit="objects", note=f"of {len(before)}"),
        _latency(f"TrainingJob to its pod {note}, p50", to_pod, 100.0, "after the restart", quiet),
        _latency(f"pod status to job status {note}, p50", to_status, 200.0, "after the restart", quiet),
    ]


async def _quiet(operator: OperatorProcess) -> None:
    """Until nobody waits for a look."""
    while (await asyncio.to_thread(operator.metrics))["flightpath_operator_queue_depth"]:
        await asyncio.sleep(0.5)
    await asyncio.sleep(3)


async def idle_cpu(process: psutil.Process) -> float:
    before = cpu_seconds(process)
    await asyncio.sleep(IDLE_S)
    return 100 * (cpu_seconds(process) - before) / IDLE_S


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def bench(servers: list[Server], root: Path, parts: list[str], *, quiet: bool) -> list[Target]:
    recipe: dict[str, Any] = await learn(root)
    path, targets = save_recipe(root, recipe), []
    for server in servers:
        found: list[Target] = []
        if "singles" in parts:
            found += await run_singles(server, root, quiet=quiet)
        if "bursts" in parts:
            found += await run_bursts(server, root, path, recipe["writes"])
        if "live" in parts:
            found += await run_live(server, root, quiet=quiet)
        targets += [_on(server, target) for target in found]
    return targets


def _on(server: Server, target: Target) -> Target:
    return Target(**{**asdict(target), "name": f"{server.name}: {target.name}"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench_operator", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=["singles", "bursts", "live"], help="singles, bursts, live")
    arguments = parser.parse_args()
    machine, quiet = hardware(), is_quiet()
    real = os.environ.get("KUBECONFIG_REAL")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        servers = [stack.enter_context(test_server(root))]
        servers += [Server(name="control plane", kubeconfig=Path(real))] if real else []
        targets = asyncio.run(bench(servers, root, arguments.only, quiet=quiet))
    if not real:
        machine += ", no real control plane (KUBECONFIG_REAL is not set)"
    return finish("operator", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
