"""The life of one Pod on this machine: volumes, init containers, containers, probes, and its end."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.client import TRANSIENT, Refused, path_of
from tests.fakes.kubernetes.container_files import NotConfigured
from tests.fakes.kubernetes.container_launch import Launcher, Machine
from tests.fakes.kubernetes.containers import ContainerState, Launch, refuse_start, run, send
from tests.fakes.kubernetes.images import ImagePullFailed
from tests.fakes.kubernetes.pod_status import phase_of, status_of
from tests.fakes.kubernetes.probes import Prober
from tests.fakes.kubernetes.status_writer import StatusWriter, is_another
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]


class _Stopped(Exception):
    """The Pod is ending: nothing is started any more."""


class PodRun:
    """`run` until the Pod is gone; cancelling kills its processes and writes nothing."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        self.machine = machine
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._launcher = Launcher(machine, pod)
        spec = pod["spec"]
        self.inits = [ContainerState(each["name"], each["image"]) for each in spec.get("initContainers") or []]
        self.mains = [ContainerState(each["name"], each["image"]) for each in spec["containers"]]
        if self.inits:
            for state in self.mains:
                state.waiting = ("PodInitializing", "")
        self._leaving = asyncio.Event()
        self._stopping = asyncio.Event()
        self._over = False
        self._extra: Object = {}
        self._started_at = rfc3339()
        self._writer = StatusWriter(machine.client, self.path, self.uid, self._status)

    @property
    def path(self) -> str:
        metadata = self.pod["metadata"]
        return path_of("v1", "pods", metadata["namespace"], metadata["name"])

    def update(self, pod: Object) -> None:
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._leaving.set()

    def log_path(self, container: str) -> Path:
        return self._launcher.log_path(container)

    def processes(self, container: str | None = None) -> list[asyncio.subprocess.Process]:
        states = [state for state in (*self.inits, *self.mains) if container in (None, state.name)]
        return [state.process for state in states if state.process is not None]

    async def run(self) -> None:
        writer = asyncio.create_task(self._writer.run())
        work = asyncio.create_task(self._work())
        leaving = asyncio.create_task(self._leaving.wait())
        tasks = [writer, work, leaving]
        try:
            deadline = self.pod["spec"].get("activeDeadlineSeconds")
            await self._any({work, leaving}, writer, deadline)
            if not work.done() and not leaving.done():
                self._extra = {"reason": "DeadlineExceeded", "message": "Pod was active longer than its deadline"}
                await self._stop(work, self._grace())
            await self._finish(work)
            await self._any({leaving}, writer)
            await self._stop(work, self._grace())
            writer.cancel()
            await asyncio.wait({writer})
            await self._delete()
        finally:
            await self._abandon(tasks)

    async def _any(
        self, tasks: "set[asyncio.Task[Any]]", writer: "asyncio.Task[None]", timeout_s: float | None = None
    ) -> None:
        """Waits for one of the tasks; the writer ends only by a failure, which is raised here."""
        await asyncio.wait({*tasks, writer}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if writer.done():
            writer.result()

    async def _finish(self, work: "asyncio.Task[None]") -> None:
        """Tells the end of a Pod that ended by itself."""
        if work.done():
            self._over = True
            self._touch()
            work.result()

    async def _abandon(self, tasks: list["asyncio.Task[Any]"]) -> None:
        for process in self.processes():
            send(process, signal.SIGKILL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def evict(self, reason: str, message: str) -> None:
        """Ends as the kubelet ends a Pod under pressure: Failed, with a reason, processes killed."""
        self._extra = {"reason": reason, "message": message}
        self._stopping.set()
        for process in self.processes():
            send(process, signal.SIGKILL)

    def _grace(self) -> int:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        return int(metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30)))

    async def _stop(self, work: "asyncio.Task[None]", grace_s: int) -> None:
        """preStop, SIGTERM, grace, SIGKILL."""
        self._stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(self._pre_stop(state) for state in self.mains if state.running))
                for process in self.processes():
                    send(process, signal.SIGTERM)
                await asyncio.wait({work})
        for process in self.processes():
            send(process, signal.SIGKILL)
        await asyncio.wait({work})
        self._over = True
        self._touch()

    async def _pre_stop(self, state: ContainerState) -> None:
        container = next(each for each in self.pod["spec"]["containers"] if each["name"] == state.name)
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook:
            await self._launcher.prober(container, state).act(hook, timeout_s=3600)

    async def _work(self) -> None:
        with suppress(_Stopped):
            await self._run_containers()

    async def _run_containers(self) -> None:
        await self._configured(self.inits + self.mains, self._launcher.prepare)
        containers = self.pod["spec"].get("initContainers") or []
        for container, state in zip(containers, self.inits, strict=True):
            policy = "Never" if self.pod["spec"]["restartPolicy"] == "Never" else "OnFailure"
            if await self._keep(container, state, policy) != 0:
                return
        pairs = zip(self.pod["spec"]["containers"], self.mains, strict=True)
        for state in self.mains:
            state.waiting = ("ContainerCreating", "")
        policy = self.pod["spec"]["restartPolicy"]
        keeping = [self._keep(container, state, policy) for container, state in pairs]
        for result in await asyncio.gather(*keeping, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, _Stopped):
                raise result

    async def _configured(self, states: list[ContainerState], attempt: Callable[[], Awaitable[Any]]) -> Any:
        """The attempt's result, once what it needs is there."""
        failures = 0
        while True:
            try:
                return await attempt()
            except (ImagePullFailed, NotConfigured) as error:
                pulling = ("ErrImagePull", "ImagePullBackOff")[failures % 2]
                reason = pulling if isinstance(error, ImagePullFailed) else "CreateContainerConfigError"
                for state in states:
                    state.waiting = (reason, str(error))
            except (Refused, *TRANSIENT) as error:
                for state in states:
                    state.waiting = ("CreateContainerConfigError", str(error))
            failures += 1
            self._touch()
            await self._pause(self._backoff(failures))

    async def _pause(self, seconds: float) -> None:
        """A back-off that the Pod's end cuts short."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        if self._stopping.is_set():
            raise _Stopped

    def _backoff(self, failures: int) -> float:
        return float(min(10 * 2 ** (failures - 1), 300)) * self.machine.time_scale

    async def _keep(self, container: Object, state: ContainerState, policy: str) -> int:
        """Runs a container as often as its policy says; the last exit code."""
        while True:
            code = await self._start(container, state)
            self._touch()
            if self._stopping.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            state.last, state.terminated = state.terminated, None
            state.restarts += 1
            state.waiting = ("CrashLoopBackOff", f"back-off restarting failed container {state.name}")
            self._touch()
            await self._pause(self._backoff(state.restarts))

    async def _start(self, container: Object, state: ContainerState) -> int:
        """Starts a container once and waits for its end; what cannot be executed ends at once."""
        try:
            launch = await self._configured([state], lambda: self._launcher.launch(container))
            return await self._run_once(container, state, launch)
        except OSError as error:
            return refuse_start(state, error)

    async def _run_once(self, container: Object, state: ContainerState, launch: Launch) -> int:
        if self._stopping.is_set():
            raise _Stopped
        probing = asyncio.create_task(self._probe(container, state))
        fallback = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        try:
            return await run(state, launch, fallback)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe(self, container: Object, state: ContainerState) -> None:
        """Startup first, then readiness and liveness side by side."""
        while state.process is None:
            await asyncio.sleep(0.005)
        if self._stopping.is_set():  # it was being started when the others were ended
            await self._end(state)
            return
        prober = self._launcher.prober(container, state)
        startup, liveness = container.get("startupProbe"), container.get("livenessProbe")
        both = frozenset({True, False})
        if startup and not await prober.results(startup, lambda _: None, until=both):
            await self._end(state)
            return
        state.started = True
        readiness = container.get("readinessProbe")
        if not readiness:
            state.ready = True
        self._touch()
        waits = []
        if readiness:
            waits.append(prober.results(readiness, lambda ready: self._set_ready(state, ready), until=frozenset()))
        if liveness:
            waits.append(self._keep_alive(prober, liveness, state))
        await asyncio.gather(*waits)

    async def _keep_alive(self, prober: Prober, probe: Object, state: ContainerState) -> bool:
        alive = await prober.results(probe, lambda _: None, until=frozenset({False}))
        await self._end(state)
        return alive

    async def _end(self, state: ContainerState) -> None:
        """SIGTERM and, after the grace, SIGKILL; the end of the process cancels this."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if state.process is not None:
                send(state.process, number)
            await asyncio.sleep(self._grace())

    def _set_ready(self, state: ContainerState, ready: bool) -> None:
        state.ready = ready
        self._touch()

    def _touch(self) -> None:
        self._writer.touch()

    def _status(self, written: list[Object]) -> Object:
        phase = phase_of(self.inits, self.mains, over=self._over or all(map(self._for_good, self.mains)))
        before = [*written, *((self.pod.get("status") or {}).get("conditions") or [])]
        return status_of(self.inits, self.mains, phase, before, self._started_at) | self._extra

    def _for_good(self, state: ContainerState) -> bool:
        """Whether it ended and will not be started again: the last such end and the Pod's phase are told at once."""
        policy = self.pod["spec"]["restartPolicy"]
        ended = state.terminated
        return ended is not None and (policy == "Never" or (policy == "OnFailure" and ended["exitCode"] == 0))

    async def _delete(self) -> None:
        """Writes the last status and lets the object go."""
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                await self._writer.write()
                await self.machine.client.request("DELETE", self.path, body)
                return
            except (Refused, *TRANSIENT) as error:
                if is_another(error):
                    return
                await asyncio.sleep(0.1)
