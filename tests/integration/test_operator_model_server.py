"""ModelDeployments whose pods really fetch, verify and serve: rolled, scaled and drained on the test API server."""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from serving.store import ArtifactStore
from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.client import connect, path_of
from tests.fakes.kubernetes.controllers import running_controllers
from tests.fakes.kubernetes.images import Image
from tests.fakes.kubernetes.kubelet import ProcessKubelet
from tests.fakes.models import CLASSES, FEATURES, VARIANT, linear_weights, write_bundle
from tests.fakes.operator import PROJECT, OperatorProcess, install_crds

Object = dict[str, Any]
IMAGE = Image(path=(Path(sys.executable).parent,), environment={"PYTHONPATH": str(PROJECT)})
INPUT = np.linspace(-1, 1, FEATURES, dtype=np.float32)
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": INPUT.tolist()}]}
SCALE = path_of("flightpath.dev/v1alpha1", "modeldeployments", "default", "digits", "scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    server: ApiServer
    kubelet: ProcessKubelet
    operator: OperatorProcess
    config: Path
    store: Path
    digests: tuple[str, ...]
    """Of two bundles of the model, made from seeds 0 and 1."""

    def create(self, digest: str) -> None:
        spec = {
            "model": "digits",
            "bundle": {"digest": digest, "uri": "file:///store"},
            "runtime": {"engine": "onnxruntime", "variant": VARIANT, "image": "server:1"},
            "replicas": 1,
            "volumes": [{"name": "store", "hostPath": {"path": str(self.store)}}],
            "volumeMounts": [{"name": "store", "mountPath": "/store"}],
        }
        head = {"apiVersion": "flightpath.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "digits"}}
        self.server.create({**head, "spec": spec})

    def status(self) -> Object:
        status: Object = (self.server.find("modeldeployments", "digits") or {}).get("status") or {}
        return status

    def serves(self, digest: str, replicas: int = 1) -> bool:
        status = self.status()
        told = [status.get(name) for name in ("phase", "observedBundle", "replicas", "readyReplicas")]
        return told == ["Ready", digest, replicas, replicas]

    def pods(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.server.objects("pods"))

    async def until(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                while not (found := condition()):
                    await asyncio.sleep(0.02)
        except TimeoutError as late:
            raise AssertionError(self.story()) from late
        return found

    def story(self) -> str:
        """What a person would look at."""
        shown = [json.dumps(self.status(), indent=1)]
        for pod in self.server.objects("pods"):
            name = pod["metadata"]["name"]
            shown += [json.dumps(pod.get("status"), indent=1), self.kubelet.log(name), self.operator.log[-2000:]]
        return "\n".join(shown)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A store, and the digests of what is in it."""
    root = tmp_path_factory.mktemp("bundles")
    store = ArtifactStore((root / "store").as_uri())
    digests = []
    for seed in (0, 1):
        write_bundle(root / str(seed), root / "keys", seed=seed)
        digests.append(store.put_bundle(root / str(seed)))
    return root / "store", tuple(digests)


@pytest.fixture
async def cluster(tmp_path: Path, bundles: tuple[Path, tuple[str, ...]]) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer())
        install_crds(server)
        config = server.kubeconfig(tmp_path / "kubeconfig")
        images = {"server:1": IMAGE, "flightpath:1": IMAGE}
        kubelet = await stack.enter_async_context(ProcessKubelet(config, images, time_scale=0.05))
        await stack.enter_async_context(running_controllers(config))
        process = OperatorProcess(config, tmp_path / "operator.log", flightpath_image="flightpath:1")
        operator = await stack.enter_async_context(process)
        store, digests = bundles
        yield Cluster(server=server, kubelet=kubelet, operator=operator, config=config, store=store, digests=digests)
        assert "Traceback" not in operator.log, operator.log


@dataclass(slots=True)
class Client:
    """Asks without a pause, each time another ready endpoint, as a Service would choose."""

    cluster: Cluster
    session: aiohttp.ClientSession
    answers: Counter[int] = field(default_factory=Counter)
    """By seed of the bundle that answered."""
    endpoints: Counter[int] = field(default_factory=Counter)
    """By port."""
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        for turn in itertools.count():
            ready = self.cluster.kubelet.endpoints("digits")
            if not ready:
                self.failures.append("no endpoint is ready")
                return
            host, port = ready[turn % len(ready)]
            try:
                self.answers[await infer(self.session, f"http://{host}:{port}")] += 1
                self.endpoints[port] += 1
            except (aiohttp.ClientError, OSError) as failed:
                self.failures.append(repr(failed))
            await asyncio.sleep(0.005)


@asynccontextmanager
async def asking(cluster: Cluster) -> AsyncIterator[Client]:
    # A connection for each request, as most clients of a Service have: kept ones would hide refusals.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        client = Client(cluster, session)
        task = asyncio.create_task(client.run())
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert client.failures == []


async def infer(session: aiohttp.ClientSession, url: str) -> int:
    """The seed of the model that answered; every answer is checked against the model's own arithmetic."""
    async with session.post(f"{url}/v2/models/digits/infer", json=BODY) as response:
        response.raise_for_status()
        return seed_of(await response.json())


def seed_of(answer: Object) -> int:
    (output,) = answer["outputs"]
    logits = np.array(output["data"], dtype=np.float32)
    assert logits.shape == (CLASSES,)
    for seed in (0, 1):
        weights, bias = linear_weights(seed)
        if np.allclose(logits, INPUT @ weights + bias, atol=1e-4):
            return seed
    raise AssertionError(f"answer must be of one of the two bundles, got {logits}")


async def test_a_bundle_is_fetched_served_and_rolled_without_a_failed_request(cluster: Cluster) -> None:
    first, second = cluster.digests
    cluster.create(first)
    await cluster.until(lambda: cluster.serves(first))
    (before,) = cluster.pods()
    assert f"flightpath: bundle {first} is in" in cluster.kubelet.log(before, container="fetch")
    async with asking(cluster) as client:
        await cluster.until(lambda: client.answers[0] > 10)
        body = {"spec": {"bundle": {"digest": second}}}
        cluster.server.patch("modeldeployments", "digits", body)
        await cluster.until(lambda: cluster.serves(second) and before not in cluster.pods())
        asked = client.answers[1]
        await cluster.until(lambda: client.answers[1] > asked + 10)
    assert min(client.answers[0], client.answers[1]) > 10


async def test_replicas_follow_the_scale_subresource_under_load(cluster: Cluster) -> None:
    digest = cluster.digests[0]
    cluster.create(digest)
    await cluster.until(lambda: cluster.serves(digest))
    async with connect(cluster.config) as api, asking(cluster) as client:
        await api.merge(SCALE, {"spec": {"replicas": 2}})
        await cluster.until(lambda: cluster.serves(digest, replicas=2))
        await cluster.until(lambda: len(client.endpoints) == 2 and min(client.endpoints.values()) > 10)
        scale = await api.request("GET", SCALE)
        assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
        selector = dict(pair.split("=") for pair in scale["status"]["selector"].split(","))
        assert len(cluster.server.objects("pods", labels=selector)) == 2
        await api.merge(SCALE, {"spec": {"replicas": 1}})
        await cluster.until(lambda: cluster.serves(digest) and len(cluster.pods()) == 1)


async def test_a_deleted_deployment_finishes_the_request_that_is_under_way(cluster: Cluster) -> None:
    digest = cluster.digests[0]
    cluster.create(digest)
    ((host, port),) = await cluster.until(lambda: cluster.kubelet.endpoints("digits"))
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps(BODY).encode()
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: digits\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body[:100])
    await writer.drain()
    cluster.server.delete("modeldeployments", "digits")
    async with asyncio.timeout(30):
        while await accepts(host, port):
            await asyncio.sleep(0.05)
    writer.write(body[100:])
    answer = (await reader.read()).decode()
    writer.close()
    head_of_answer, _, document = answer.partition("\r\n\r\n")
    assert head_of_answer.startswith("HTTP/1.1 200")
    assert seed_of(json.loads(document)) == 0
    await cluster.until(lambda: cluster.pods() == [] and not cluster.server.objects("deployments"))


async def accepts(host: str, port: int) -> bool:
    """Whether a new connection is taken: not any more once SIGTERM was heard."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_a_bundle_that_the_store_does_not_have_is_told_and_the_old_one_serves_on(cluster: Cluster) -> None:
    first, missing = cluster.digests[0], f"sha256:{'0a' * 32}"
    cluster.create(first)
    await cluster.until(lambda: cluster.serves(first))
    async with asking(cluster) as client:
        cluster.server.patch("modeldeployments", "digits", {"spec": {"bundle": {"digest": missing}}})
        await cluster.until(lambda: cluster.status().get("phase") == "Degraded")
        asked = client.answers[0]
        await cluster.until(lambda: client.answers[0] > asked + 10)
    (ready,) = [each for each in cluster.status()["conditions"] if each["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "CrashLoopBackOff")
    assert "fetch: exited with 1" in ready["message"]
    assert "store has no such bundle" in ready["message"]
    assert missing.removeprefix("sha256:") in ready["message"]
