"""The six examples, applied as people do it: all are taken, looked at, and say what of them is left out and why."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.client import Refused, path_of
from tests.fakes.operator import PROJECT, OperatorProcess
from tests.fakes.operator_cluster import Cluster, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
EXAMPLES = PROJECT / "examples" / "operator"
CLASSES = ("training", "serving")
ACCOUNTS = ("llm-trainer", "model-server")


@pytest.fixture
async def furnished(cluster: Cluster) -> AsyncIterator[Cluster]:
    """What the examples take for granted: service accounts, and priority classes, which are the whole cluster's."""
    for name in ACCOUNTS:
        await cluster.create(
            "serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        )
    made = []
    kind = "scheduling.k8s.io/v1"
    for name in CLASSES:
        document = {"apiVersion": kind, "kind": "PriorityClass", "metadata": {"name": name}, "value": 1}
        with contextlib.suppress(Refused):  # the cluster may have it
            await cluster.client.request("POST", path_of(kind, "priorityclasses"), document)
            made.append(name)
    yield cluster
    for name in made:
        await cluster.client.request("DELETE", path_of(kind, "priorityclasses", "", name))


async def apply(cluster: Cluster, name: str) -> None:
    path = Path(EXAMPLES, f"{name}.yaml")
    done = await asyncio.to_thread(cluster.kubectl, "apply", "--validate=false", "-f", str(path))
    assert done.returncode == 0, done.stderr


async def accepted(cluster: Cluster, plural: str, name: str, operator: OperatorProcess) -> dict[str, Any]:
    """The status, once the object is accepted."""

    async def said() -> dict[str, Any]:
        found = await cluster.condition(plural, name, "Accepted")
        return await cluster.status(plural, name) if found.get("status") == "True" else {}

    status: dict[str, Any] = await until(said, operator)
    return status


@pytest.mark.parametrize(
    ("example", "job", "pods"),
    [
        ("single-worker", "digits", 1),
        ("ddp-2x2", "digits-ddp", 2),
        ("elastic-spot", "digits-spot", 2),
        ("resume-from-s3", "llm-continued", 4),
    ],
)
async def test_jobs_get_their_workers(
    furnished: Cluster, operator: OperatorProcess, example: str, job: str, pods: int
) -> None:
    await apply(furnished, example)
    status = await accepted(furnished, "trainingjobs", job, operator)
    assert status["phase"] in ("Pending", "Starting")

    async def complete() -> bool:
        return len(await furnished.pods(job)) == pods

    await until(complete, operator)


async def test_a_queue_without_kueue_is_named(furnished: Cluster, operator: OperatorProcess) -> None:
    await apply(furnished, "elastic-spot")

    async def degraded() -> dict[str, Any]:
        return await furnished.condition("trainingjobs", "digits-spot", "Degraded")

    found = await until(degraded, operator)
    assert (found["status"], found["reason"]) == ("True", "KueueMissing")
    assert "queue research needs Kueue" in found["message"]


async def test_a_team_cluster_without_kuberay_is_refused_by_name(furnished: Cluster, operator: OperatorProcess) -> None:
    await apply(furnished, "team-cluster")

    async def refused() -> list[dict[str, Any]]:
        status = await furnished.status("trainingclusters", "vision")
        return [each for each in status.get("conditions") or [] if each["reason"] == "KubeRayMissing"]

    assert (await until(refused, operator))[0]["status"] == "False"
    assert (await furnished.status("trainingclusters", "vision"))["phase"] == "Pending"


async def test_deployments_become_servers(furnished: Cluster, operator: OperatorProcess) -> None:
    await apply(furnished, "vllm-canary")
    for name in ("chat-stable", "chat-canary"):
        status = await accepted(furnished, "modeldeployments", name, operator)
        assert status["phase"]

        async def made(name: str = name) -> bool:
            kinds = ("deployments", "services", "networkpolicies")
            return all([await furnished.objects(kind, f"md.{name}") for kind in kinds])

        await until(made, operator)
