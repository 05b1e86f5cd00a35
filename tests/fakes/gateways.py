"""A real gateway process in a state root of its own, and the calls that an agent makes to it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from serving.credentials import TokenFolder, hop_credential
from serving.gateway.app import GatewayConfig, assemble
from serving.regions.places.topology import local_topology
from serving.web_server import ServerLimits, WebServer, bind_listener
from tests.fakes.models import end_process, wait_until_ready
from tests.fakes.ports import free_port

REGION = "us-east"


class GatewayProcess:
    """`python -m serving.gateway.app` on a free port; `start` again replaces the running one."""

    def __init__(self, root: Path, *, port: int | None = None, code: Path | None = None) -> None:
        """`code` is a checkout to run the gateway of, if not this one."""
        self.root = root
        self.code = code
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.tokens = TokenFolder(folder=root / "tokens")
        self.tokens.ensure()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def folder(self) -> Path:
        """The region's state folder."""
        return self.root / "regions" / REGION

    @property
    def admin_headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens.read('gateway')}"}

    @property
    def peer_headers(self) -> dict[str, str]:
        """With these another `x-flightpath-` header is believed."""
        return {"x-flightpath-credential": hop_credential(self.tokens.read("peer"))}

    def spawn(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "FLIGHTPATH_HOME": str(self.root), "FLIGHTPATH_PORT_BASE": str(self.port)}
        if self.code is not None:
            environment["PYTHONPATH"] = str(self.code)
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.gateway.app", "--region", REGION],
            env=environment,
            cwd=self.code,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def start(self) -> subprocess.Popen[bytes]:
        """Spawn and wait until it answers."""
        process = self.spawn()
        wait_until_ready(f"{self.url}/readyz", process)
        return process

    def end(self) -> None:
        for process in self.processes:
            end_process(process)


class LocalGateway:
    """A gateway in the test's own process, so that its limits can be chosen; on a real socket all the same."""

    def __init__(self, url: str, tokens: TokenFolder, server: WebServer) -> None:
        self.url = url
        self.server = server
        self._admin = {"authorization": f"Bearer {tokens.read('gateway')}"}
        self.peer = {"x-flightpath-credential": hop_credential(tokens.read("peer"))}
        """With this header another `x-flightpath-` one is believed."""
        self.http = httpx.AsyncClient(base_url=url, timeout=20, trust_env=False)

    async def put(self, document: dict[str, Any]) -> None:
        path = f"/admin/v1/routes/{document['model']}"
        (await self.http.put(path, json=document, headers=self._admin)).raise_for_status()

    async def stats(self, model: str) -> dict[str, Any]:
        """Counters by backend id."""
        response = await self.http.get(f"/admin/v1/stats/{model}", headers=self._admin)
        backends: dict[str, Any] = response.raise_for_status().json()["backends"]
        return backends

    async def pairs(self, model: str, *, after: int = 0) -> dict[str, Any]:
        response = await self.http.get(f"/admin/v1/pairs/{model}?after={after}", headers=self._admin)
        document: dict[str, Any] = response.raise_for_status().json()
        return document

    async def metric(self, line_start: str) -> float:
        """The value of the one line of /metrics that starts so; 0 if there is none."""
        lines = [line for line in (await self.http.get("/metrics")).text.splitlines() if line.startswith(line_start)]
        assert len(lines) <= 1, lines
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@contextlib.asynccontextmanager
async def local_gateway(root: Path, *, region: str = REGION, **config: Any) -> AsyncIterator[LocalGateway]:
    """A running gateway; `config` are fields of GatewayConfig."""
    port = free_port()
    tokens = TokenFolder(folder=root / "tokens")
    tokens.ensure()
    topology = local_topology(root, port_base=port)
    folder = topology.region(region).state_folder
    folder.mkdir(parents=True, exist_ok=True)
    limits = ServerLimits(idle_grace_s=0.0, drain_s=5.0)
    async with assemble(GatewayConfig(region=topology.region(region), tokens=tokens, **config)) as assembled:
        server = WebServer(assembled.gateway, limits)
        await server.start(bind_listener("127.0.0.1", port))
        gateway = LocalGateway(f"http://127.0.0.1:{port}", tokens, server)
        try:
            yield gateway
        finally:
            await gateway.http.aclose()
            await server.drain()


def backend(
    backend_id: str, url: str, *, weight: int, version: int = 1, remote: bool = False, region: str = REGION
) -> dict[str, Any]:
    """One backend of a route; its release is its id up to the `@`."""
    return {
        "id": backend_id,
        "release": backend_id.partition("@")[0],
        "version": version,
        "region": region,
        "url": url,
        "remote": remote,
        "weight": weight,
    }


def mirror(candidate: str, live: str, **shares: float) -> dict[str, Any]:
    """A route's mirror; the candidate's answers are repeated and nothing else, unless `shares` say otherwise."""
    return {
        "candidate": candidate,
        "live": live,
        **{"candidate_share": 1.0, "live_share": 0.0, "completions_share": 0.0, **shares},
    }


def route(*backends: dict[str, Any], mirror: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A route of the model `digits`."""
    return {
        "schema_version": 1,
        "model": "digits",
        "reason": None,
        "classes": [str(digit) for digit in range(10)],
        "mirror": mirror,
        "backends": list(backends),
        **changes,
    }


class GatewayClient:
    """What users and agents do to a gateway, over one keep-alive connection. Use `with`."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self.http = httpx.Client(base_url=gateway.url, timeout=20, trust_env=False)

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def put(self, document: dict[str, Any]) -> httpx.Response:
        path = f"/admin/v1/routes/{document['model']}"
        return self.http.put(path, json=document, headers=self._gateway.admin_headers)

    def stats(self, model: str = "digits") -> dict[str, Any]:
        """Counters by backend id."""
        response = self.http.get(f"/admin/v1/stats/{model}", headers=self._gateway.admin_headers)
        backends: dict[str, Any] = response.raise_for_status().json()["backends"]
        return backends

    def infer(self, *, rows: int = 1, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.http.post("/v2/models/digits/infer", content=infer_body(rows), headers=headers)


def endings(counters: dict[str, Any]) -> dict[str, int]:
    """How users' attempts ended, by name; what never happened is left out."""
    return {name: count for name, count in counters["users"].items() if name != "latencies" and count}


def answers_timed(counters: dict[str, Any]) -> int:
    """How many of users' answers have a latency."""
    return sum(counters["users"]["latencies"])


def infer_body(rows: int = 1) -> bytes:
    """A v2 request of `rows` samples that differ from each other."""
    data = [((row + 1) * column % 17) / 17 for row in range(rows) for column in range(64)]
    tensor = {"name": "x", "shape": [rows, 64], "datatype": "FP32", "data": data}
    return json.dumps({"id": "user-id", "inputs": [tensor]}).encode()


def wait_for(read: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Poll until `read` says yes; what never comes is a failure."""
    deadline = time.monotonic() + timeout_s
    while not read():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {timeout_s} s")
        time.sleep(0.02)
