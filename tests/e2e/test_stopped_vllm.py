"""SIGSTOP to the engine of a real vLLM: its front still says that it is well, and answers nobody."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from serving.bundle import Manifest, Variant, describe_file
from serving.liveness import LivenessLimits
from serving.processes import ProcessRecord, read_records, stop
from serving.regions.servers.commands import BUILTIN
from serving.regions.servers.launcher import LaunchSettings, LocalLauncher
from serving.regions.servers.server_metrics import read_metrics
from serving.regions.servers.server_process import ServerSpec
from serving.regions.servers.watch import WatchSettings
from serving.releases import RuntimeSpec
from tests.fakes.language_models import QUICK, write_llama

pytestmark = pytest.mark.timeout(400)


def write_language_bundle(folder: Path) -> None:
    write_llama(folder / "model")
    paths = sorted(path.relative_to(folder).as_posix() for path in (folder / "model").rglob("*") if path.is_file())
    files = [describe_file(folder, path) for path in paths]
    variant = Variant(name="vllm", runtime="vllm", entry="model", files=files)
    manifest = Manifest(name="tiny", family="llama", inputs=[], outputs=[], variants=[variant])
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


@contextlib.asynccontextmanager
async def launching(root: Path, restarts: list[str]) -> AsyncIterator[LocalLauncher]:
    launcher = LocalLauncher(
        root / "servers",
        root / "logs",
        runtimes={},
        # On a loaded machine even two looks at the metrics of a stopped one take seconds.
        settings=LaunchSettings(watch=WatchSettings(liveness=LivenessLimits(stopped_dead_s=20.0))),
        on_restart=lambda name, why: restarts.append(why),
    )
    watching = asyncio.create_task(launcher.supervise())
    try:
        yield launcher
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for record in read_records(root / "servers"):
            stop(record, grace_s=0.0)


async def until(holds: Callable[[], bool], *, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.05)


def engine(record: ProcessRecord) -> psutil.Process:
    children = psutil.Process(record.pid).children(recursive=True)
    return next(child for child in children if "EngineCore" in f"{child.name()} {child.cmdline()}")


async def work_moves_only_with_the_engine(url: str, core: psutil.Process) -> None:
    """What tells a busy server from a hung one: metrics move while it computes, and not while it only listens."""
    body = {"model": "tiny", "prompt": "x", "max_tokens": 2000, "ignore_eos": True}
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        before = await told_work(session, url)
        asking = group.create_task(completed(session, url, body))
        while await told_work(session, url) == before:
            await asyncio.sleep(0.1)
        core.suspend()
        held = await told_work(session, url)
        asking_too = group.create_task(completed(session, url, body))
        await asyncio.sleep(1)
        assert await told_work(session, url) == held
        core.resume()
        for task in (asking, asking_too):
            task.cancel()


async def told_work(session: aiohttp.ClientSession, url: str) -> list[str]:
    text = await read_metrics(session, url, timeout_s=60)
    told = [line for line in text.splitlines() if line.startswith(BUILTIN["vllm"].work_metrics)]
    assert told
    return told


async def completed(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with session.post(f"{url}/v1/completions", json=body) as response:
        await response.read()


async def test_a_stopped_engine_leaves_the_route_comes_back_and_is_replaced(tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "bundle")
    runtime = RuntimeSpec(engine="vllm", variant="vllm", arguments=list(QUICK))
    spec = ServerSpec(name="rel-1", model="tiny", version=1, bundle=tmp_path / "bundle", runtime=runtime)
    restarts: list[str] = []
    async with launching(tmp_path, restarts) as launcher:
        await launcher.ensure(spec, restart=True)
        await until(lambda: launcher.status("rel-1").url is not None, timeout_s=240)
        (before,) = read_records(tmp_path / "servers")
        core, url = engine(before), str(launcher.status("rel-1").url)
        await work_moves_only_with_the_engine(url, core)
        core.send_signal(signal.SIGSTOP)
        await until(lambda: launcher.status("rel-1").url is None, timeout_s=30)
        assert launcher.status("rel-1").note.startswith("stopped for")
        core.send_signal(signal.SIGCONT)
        await until(lambda: launcher.status("rel-1").url is not None, timeout_s=60)
        assert before.alive
        os.kill(core.pid, signal.SIGSTOP)
        await until(lambda: restarts != [], timeout_s=60)
        (after,) = read_records(tmp_path / "servers")
    assert restarts[0].startswith("killed: stopped for")
    assert not core.is_running() or core.status() == psutil.STATUS_ZOMBIE
    assert after.pid != before.pid
