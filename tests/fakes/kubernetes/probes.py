"""Probes and preStop hooks against a local process: httpGet, tcpSocket, exec and sleep."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.fakes.kubernetes.containers import ContainerState
from tests.fakes.kubernetes.local_network import LOOPBACK

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prober:
    """Acts on one container."""

    state: ContainerState
    local_port: Callable[[int | str], int]
    rewrite: Callable[[list[str]], list[str]]
    """Makes a command's words local."""
    time_scale: float

    async def act(self, action: Object, timeout_s: float) -> bool:
        """Whether the action of a probe or hook succeeded in time."""
        try:
            async with asyncio.timeout(timeout_s):
                if "httpGet" in action:
                    return await self._get(action["httpGet"])
                if "tcpSocket" in action:
                    return await self._connect(action["tcpSocket"])
                if "exec" in action:
                    return await self._execute(action["exec"]["command"])
                if "sleep" in action:
                    await asyncio.sleep(action["sleep"]["seconds"])
                    return True
        except (TimeoutError, OSError, aiohttp.ClientError, LookupError):
            return False
        raise ValueError(f"a probe must be one of httpGet, tcpSocket, exec, sleep; got {sorted(action)}")

    async def _get(self, action: Object) -> bool:
        url = f"http://{LOOPBACK}:{self.local_port(action['port'])}/{action.get('path', '/').lstrip('/')}"
        headers = {each["name"]: each["value"] for each in action.get("httpHeaders") or []}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            return 200 <= response.status < 400

    async def _connect(self, action: Object) -> bool:
        _, writer = await asyncio.open_connection(LOOPBACK, self.local_port(action["port"]))
        writer.close()
        return True

    async def _execute(self, command: list[str]) -> bool:
        process = await asyncio.create_subprocess_exec(
            *self.rewrite(command),
            env=self.state.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def results(self, probe: Object, report: Callable[[bool], None], until: frozenset[bool]) -> bool:
        """Reports each change of the verdict, until it is one of `until`."""
        action = {name: value for name, value in probe.items() if name in ("httpGet", "tcpSocket", "exec", "grpc")}
        thresholds = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        await asyncio.sleep(probe.get("initialDelaySeconds", 0) * self.time_scale)
        streak, last, verdict = 0, None, None
        while True:
            result = await self.act(action, probe.get("timeoutSeconds", 1))
            streak = streak + 1 if result is last else 1
            last = result
            if streak >= thresholds[result] and verdict is not result:
                verdict = result
                report(result)
                if result in until:
                    return result
            await asyncio.sleep(probe.get("periodSeconds", 10) * self.time_scale)
