"""Kopf runs on the test API server: it sees every change, once per version, and lives through an expired watch."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.widgets import WIDGET, widget

Seen = list[tuple[str | None, str]]


def _registry(seen: Seen) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)

    @kopf.on.event("example.dev", "v1", "widgets", registry=registry)
    async def observe(type: str | None, name: str, **_: Any) -> None:
        seen.append((type, name))

    @kopf.on.create("example.dev", "v1", "widgets", registry=registry, annotations={"handled": "yes"})
    async def answer(patch: kopf.Patch, **_: Any) -> None:
        patch.status["phase"] = "Up"

    @kopf.on.delete("example.dev", "v1", "widgets", registry=registry, annotations={"handled": "yes"})
    async def part(name: str, **_: Any) -> None:
        seen.append(("parted", name))

    return registry


@asynccontextmanager
async def _operator(seen: Seen) -> AsyncIterator[None]:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.reconnect_backoff = 0.05
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        kopf.operator(
            registry=_registry(seen), settings=settings, stop_flag=stop, ready_flag=ready, namespaces=["default"]
        )
    )
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        server.create(WIDGET)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


async def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def test_kopf_sees_creation_change_and_deletion(server: ApiServer) -> None:
    seen: Seen = []
    server.create(widget("before"))
    async with _operator(seen):
        await _until(lambda: (None, "before") in seen)
        server.create(widget("one"))
        await _until(lambda: ("ADDED", "one") in seen)
        server.patch("widgets", "one", {"spec": {"size": 2}})
        await _until(lambda: ("MODIFIED", "one") in seen)
        server.delete("widgets", "one")
        await _until(lambda: ("DELETED", "one") in seen)


async def test_kopf_survives_an_expired_watch(server: ApiServer) -> None:
    seen: Seen = []
    async with _operator(seen):
        await _until(lambda: server.watches.count("widgets") == 1)
        server.watches.expire("widgets")
        server.create(widget("after"))
        await _until(lambda: any(name == "after" for _, name in seen))


async def test_kopf_survives_a_dropped_connection(server: ApiServer) -> None:
    seen: Seen = []
    async with _operator(seen):
        await _until(lambda: server.watches.count("widgets") == 1)
        server.watches.drop("widgets")
        server.create(widget("after"))
        await _until(lambda: any(name == "after" for _, name in seen))


async def test_kopf_writes_status_and_holds_deletion_with_its_finalizer(server: ApiServer) -> None:
    seen: Seen = []
    body = widget("one")
    body["metadata"]["annotations"] = {"handled": "yes"}
    async with _operator(seen):
        server.create(body)
        await _until(lambda: server.get("widgets", "one").get("status", {}).get("phase") == "Up")
        assert server.get("widgets", "one")["metadata"]["finalizers"]
        server.delete("widgets", "one")
        await _until(lambda: server.find("widgets", "one") is None)
        assert ("parted", "one") in seen
