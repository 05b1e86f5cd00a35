"""The operator as a process: takes the lease, fills its caches, reconciles until it is told to end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import kopf
from aiohttp import web

from flightpath_operator.clusters.reconcile import reconcile as reconcile_cluster
from flightpath_operator.deployments.reconcile import reconcile as reconcile_deployment
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import GROUP
from flightpath_operator.runtime.audit import Audit
from flightpath_operator.runtime.client import Client, ClientSettings, connect
from flightpath_operator.runtime.controller import Controller, Reconcile
from flightpath_operator.runtime.discovery import Discovered, discover
from flightpath_operator.runtime.errors import ApiError
from flightpath_operator.runtime.handlers import make_registry, make_settings
from flightpath_operator.runtime.health import Health
from flightpath_operator.runtime.leader import Leadership, LeaseSettings
from flightpath_operator.runtime.logs import log_as_json
from flightpath_operator.runtime.progress_key import load_progress_key
from flightpath_operator.runtime.progress_server import ProgressServer, progress_token
from flightpath_operator.runtime.reflector import WatchSettings
from flightpath_operator.runtime.resources import PARENTS, POD
from flightpath_operator.runtime.settings import Settings
from flightpath_operator.training.reconcile import reconcile as reconcile_job
from flightpath_operator.training.settings import TrainingSettings

logger = logging.getLogger(__name__)
_CRD_PAUSE_S = 5.0
_END_S = 0.5
LEADER_LABEL = f"{GROUP}/leader"


def main() -> int:
    settings = Settings()
    log_as_json(settings.log_level)
    return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """The whole life of the process; returns its exit code."""
    stop = asyncio.Event()
    _listen_to_signals(stop)
    health = Health()
    calls = ClientSettings(concurrent_calls=settings.concurrent_calls)
    async with connect(calls) as client, _serve(health.app(), settings.host, settings.metrics_port):
        leadership = _leadership(client, settings)
        health.unready = lambda: ""  # one that waits for the lease is as ready as it will be
        await _mark(client, settings, leading=False)
        if not await _unless(stop, leadership.acquire()):
            return 0
        health.unready = lambda: "filling the caches"
        await _mark(client, settings, leading=True)
        return await _lead(client, settings, health, leadership, stop)


async def _mark(client: Client, settings: Settings, *, leading: bool) -> None:
    """Label the own pod, so that the Service of the workers' reports reaches the one that listens."""
    if not settings.pod:
        return
    body = {"metadata": {"labels": {LEADER_LABEL: "true" if leading else None}}}
    try:
        await client.patch(POD, settings.pod, settings.namespace, body)
    except ApiError as failure:
        logger.warning("pod %s is not labelled: %s", settings.pod, failure)


async def _lead(client: Client, settings: Settings, health: Health, leadership: Leadership, stop: asyncio.Event) -> int:
    discovered = await _wait_for_crds(client, health, stop)
    if discovered is None:
        await leadership.release()
        return 0
    key = await load_progress_key(client, settings.progress_key_file, settings.namespace)
    watch = WatchSettings(server_timeout_s=settings.server_timeout_s, silence_s=settings.server_timeout_s + 60)
    controller = Controller(
        client, discovered, reconcilers(settings, key), watch=watch, may_cordon=settings.cordon_nodes
    )
    audit = Audit(client, {r: controller.parents[r.kind] for r in PARENTS}, every_s=settings.audit_s)
    _report_health(health, controller, audit, settings)
    progress = ProgressServer(key, job=controller.job, on_progress=controller.report)
    async with _serve(progress.app(), settings.host, settings.progress_port):
        tasks = [
            asyncio.create_task(controller.run(), name="watches"),
            asyncio.create_task(audit.run(), name="audit"),
            asyncio.create_task(leadership.hold(), name="lease"),
            asyncio.create_task(_watch_parents(controller, settings, stop), name="kopf"),
            asyncio.create_task(_watch_add_ons(client, discovered, settings), name="add-ons"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Nothing is written any more: the next one may lead while Kopf takes its time to end.
            await controller.close()
            await leadership.release()
            for task in tasks:
                task.cancel()
            # Kopf would wait five seconds for tasks that are not its own.
            await asyncio.wait(tasks, timeout=_END_S)
        return _verdict(done)


def _listen_to_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _verdict(done: Iterable[asyncio.Task[Any]]) -> int:
    """0 for an end that was asked for; anything else ends in a restart."""
    for task in done:
        if task.get_name() in ("stop", "kopf") and task.exception() is None:
            continue
        logger.error("%s ended: %s", task.get_name(), task.exception() or task.result())
        return 1
    return 0


async def _watch_add_ons(client: Client, known: Discovered, settings: Settings) -> str:
    """Returns when the cluster can do other things than at the start: a new process watches and uses them."""
    while True:
        await asyncio.sleep(settings.discovery_s)
        with contextlib.suppress(ApiError):
            if await discover(client) != known:
                return "the cluster's kinds have changed, to be used after a restart"


async def _watch_parents(controller: Controller, settings: Settings, stop: asyncio.Event) -> None:
    await controller.synced.wait()
    ready = asyncio.Event()
    watching = asyncio.create_task(
        kopf.operator(
            registry=make_registry(controller), settings=make_settings(settings), clusterwide=True, ready_flag=ready
        )
    )
    await asyncio.wait([watching, waiting := asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    # Kopf has taken the signals for itself, and with them the order in which the process ends.
    _listen_to_signals(stop)
    try:
        await watching
    finally:
        watching.cancel()


def reconcilers(settings: Settings, key: bytes) -> Mapping[str, Reconcile]:
    """The pure reconcilers with what they need of the settings."""
    base = settings.progress_url.rstrip("/")
    training = TrainingSettings(
        progress_url=lambda namespace, name: f"{base}/v1/progress/{namespace}/{name}",
        progress_token=partial(progress_token, key),
        cordon_nodes=settings.cordon_nodes,
    )
    deployment = DeploymentSettings(flightpath_image=settings.flightpath_image)
    return {
        "TrainingJob": lambda parent, observed, now: reconcile_job(parent, observed, now, training),
        "TrainingCluster": lambda parent, observed, now: reconcile_cluster(parent, observed, now),
        "ModelDeployment": lambda parent, observed, now: reconcile_deployment(parent, observed, now, deployment),
    }


def _report_health(health: Health, controller: Controller, audit: Audit, settings: Settings) -> None:
    def unhealthy() -> str:
        if audit.deaf:
            return f"watch is stuck: {audit.deaf}"
        silent = [r.resource.plural for r in controller.reflectors if r.silent_s > 2 * settings.server_timeout_s + 120]
        return f"watch is silent: {', '.join(silent)}" if silent else ""

    health.unhealthy = unhealthy
    health.unready = controller.unready
    health.registry = controller.metrics.registry
    controller.metrics.leading.set(1)


async def _wait_for_crds(client: Client, health: Health, stop: asyncio.Event) -> Discovered | None:
    """What the cluster can do, once the operator's own kinds are there; None when told to end."""
    while not stop.is_set():
        discovered = await discover(client)
        if not discovered.missing:
            return discovered
        missing = f"CRDs are not installed: {', '.join(discovered.missing)}"
        health.unready = lambda missing=missing: missing  # type: ignore[misc]
        logger.error("%s; looking again in %g s", missing, _CRD_PAUSE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _CRD_PAUSE_S)
    return None


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before the process was told to end."""
    doing = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if doing.done():
        await doing
        return True
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    return False


def _leadership(client: Client, settings: Settings) -> Leadership:
    lease = LeaseSettings(lease_s=settings.lease_s, renew_deadline_s=settings.lease_s * 2 / 3)
    identity = settings.identity or f"{socket.gethostname()}-{os.getpid()}"
    return Leadership(client, namespace=settings.namespace, name=settings.lease_name, identity=identity, settings=lease)


@contextlib.asynccontextmanager
async def _serve(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
