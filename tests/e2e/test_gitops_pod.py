"""The containers of a region's overlay, run as processes: their commands, variables, files, ports and probes are right.

Real: what kubectl builds, the gateway, agent, model server and backup that its commands start, PostgreSQL. Emulated: S3
(moto), and the kubelet, whose work this file does: variables are expanded, mounted folders lie in the test's, names of
hosts lead to loopback.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.observability.files import FOLDER
from serving.credentials import SigningKey, TokenFolder
from serving.processes import read_records, stop
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology, load_topology
from serving.settings import Settings
from tests.fakes import kustomize
from tests.fakes.models import end_process, wait_until_ready
from tests.fakes.moto import MotoServer
from tests.fakes.ports import free_port
from tests.fakes.postgres import PASSWORD, Postgres, postgres_programs
from tests.fakes.regions import finished, infer, make_bundle, make_order, make_release

pytestmark = [
    pytest.mark.skipif(bool(kustomize.why_not()), reason=kustomize.why_not()),
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is missing: apt-get install postgresql"),
    pytest.mark.smoke,
]
PROJECT = FOLDER.parent.parent
REGION = "us-east"
Container = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kubelet:
    """Runs containers of the overlay here."""

    root: Path
    objects: list[dict[str, Any]]
    moved: Mapping[str, str]
    """What stands in the manifests, and what it is here."""
    secrets: Mapping[tuple[str, str], str]
    environment: Mapping[str, str]

    def here(self, text: str) -> str:
        for there, here in self.moved.items():
            text = text.replace(there, here)
        return text

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """By the name without the hash of its content."""
        return next(
            obj
            for obj in self.objects
            if obj["kind"] == kind and re.fullmatch(f"{name}(-[a-z0-9]{{10}})?", obj["metadata"]["name"])
        )

    def containers(self, kind: str, name: str) -> dict[str, Container]:
        spec = self.find(kind, name)["spec"]
        template = spec.get("jobTemplate", {}).get("spec", spec)["template"]
        return {container["name"]: container for container in template["spec"]["containers"]}

    def variables(self, container: Container) -> dict[str, str]:
        found = {}
        for source in container.get("envFrom", ()):
            found |= self.find("ConfigMap", source["configMapRef"]["name"])["data"]
        for entry in container.get("env", ()):
            key = entry.get("valueFrom", {}).get("secretKeyRef")
            found[entry["name"]] = entry["value"] if key is None else self.secrets[key["name"], key["key"]]
        return {name: self.here(value) for name, value in found.items()}

    def command(self, container: Container) -> list[str]:
        variables = self.variables(container)
        words = [re.sub(r"\$\((\w+)\)", lambda name: variables[name[1]], word) for word in container["command"]]
        assert words[0] == "python"
        return [sys.executable, *words[1:]]

    def start(self, container: Container) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment, **self.variables(container)}
        with (self.root / f"{container['name']}.log").open("wb") as log:
            return subprocess.Popen(self.command(container), cwd=PROJECT, env=environment, stdout=log, stderr=log)

    def probe(self, container: Container, kind: str) -> str:
        """The URL that a probe asks."""
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        asked = container[kind]["httpGet"]
        port = self.here(f"0.0.0.0:{ports[asked['port']]}").rpartition(":")[2]
        return f"http://127.0.0.1:{port}{asked['path']}"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[MotoServer]:
    with MotoServer(tmp_path / "moto.log") as running:
        for bucket in ("flightpath-us-east", "flightpath-us-east-dr"):
            running.client("s3").create_bucket(Bucket=bucket)
        yield running


@pytest.fixture
def kubelet(tmp_path: Path, aws: MotoServer) -> Iterator[Kubelet]:
    with Postgres() as postgres:
        postgres.create("flightpath")
        gateway, agent = free_port(), free_port()
        made = Kubelet(
            root=tmp_path,
            objects=list(kustomize.build(PROJECT / f"infra/gitops/overlays/{REGION}/serving")),
            moved={
                f"gateway.{REGION}.flightpath.example:8080": f"127.0.0.1:{gateway}",
                f"agent.{REGION}.flightpath.example:8081": f"127.0.0.1:{agent}",
                f"registry.{REGION}.flightpath.example:5432": f"127.0.0.1:{postgres.port}",
                "0.0.0.0:8080": f"127.0.0.1:{gateway}",
                "0.0.0.0:8081": f"127.0.0.1:{agent}",
                "/var/lib/flightpath": str(tmp_path / "state"),
                "/etc/flightpath": str(tmp_path / "etc"),
            },
            secrets={("flightpath-registry", "password"): PASSWORD},
            environment=aws.environment,
        )
        _mount(made)
        yield made


def _mount(kubelet: Kubelet) -> None:
    """ConfigMap and Secrets as files, where the pod's volumes say."""
    topology = kubelet.find("ConfigMap", "topology")["data"]["topology.yaml"]
    folder = kubelet.root / "etc"
    (folder / "topology").mkdir(parents=True)
    (folder / "topology/topology.yaml").write_text(kubelet.here(topology))
    TokenFolder(folder=folder / "tokens").ensure()
    SigningKey.ensure(folder / "keys")


def without_tls(container: Container) -> Container:
    """As it is, but for the database's TLS, which the test's has not."""
    assert {"name": "PGSSLMODE", "value": "require"} in container["env"]
    return {**container, "env": [entry for entry in container["env"] if entry["name"] != "PGSSLMODE"]}


def answer(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        return refused.code


async def test_the_pod_of_the_overlay_serves_a_promotion_and_is_backed_up(
    kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = kubelet.containers("StatefulSet", "flightpath-region")
    gateway, agent = pod["gateway"], without_tls(pod["agent"])
    monkeypatch.setenv("FLIGHTPATH_TOPOLOGY", kubelet.variables(agent)["FLIGHTPATH_TOPOLOGY"])
    topology = load_topology(Settings())
    processes = []
    try:
        for container in (gateway, agent):
            processes.append(kubelet.start(container))
            wait_until_ready(kubelet.probe(container, "startupProbe"), processes[-1])
        await asyncio.to_thread(wait_until_ready, kubelet.probe(gateway, "readinessProbe"), processes[0])
        await promote(kubelet, topology)
        for container in (gateway, agent):
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert await asyncio.to_thread(answer, kubelet.probe(container, kind)) == 200, (container["name"], kind)
        status, release, where = await infer(topology, REGION)
        assert (status, release, where) == (200, "digits-1", REGION)
        saved = await asyncio.to_thread(back_up, kubelet)
        assert saved["files"] >= 3
    except BaseException:
        for log in tmp_path.glob("*.log"):
            print(log.name, log.read_text(errors="replace")[-3000:])
        raise
    finally:
        for process in reversed(processes):
            end_process(process)
        for record in read_records(topology.region(REGION).state_folder / "servers"):
            stop(record, grace_s=0.0)


async def promote(kubelet: Kubelet, topology: Topology) -> None:
    digest = make_bundle(kubelet.root, topology, samples=16)
    token = TokenFolder(folder=topology.token_folder).read("promoter")
    home = AgentClient(topology.home.agent_url, token)
    await home.put_promotion("digits-1", make_order(make_release(kubelet.root, "digits-1", digest), [REGION]))
    assert (await finished(home, "digits-1"))["state"] == "live"


def back_up(kubelet: Kubelet) -> dict[str, Any]:
    """The CronJob's container, once."""
    container = without_tls(kubelet.containers("CronJob", "flightpath-backup")["backup"])
    environment = {**os.environ, **kubelet.environment, **kubelet.variables(container)}
    command = kubelet.command(container)
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
