"""The operator as a process while its API server misbehaves on order: refusals, overload, conflicts, lost watches."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.operator import OperatorProcess, install_crds, training_job
from tests.fakes.operator_cluster import Cluster, cluster_of, until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of("test server", tmp_path) as made:
        yield made


@pytest.fixture
def server(cluster: Cluster) -> ApiServer:
    assert cluster.server is not None
    return cluster.server


@pytest.fixture
async def operator(cluster: Cluster, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    async with cluster.operator(tmp_path / "operator.log") as running:
        yield running
        assert "Traceback" not in running.log, running.log


async def test_a_refused_pod_is_told_in_the_status_and_tried_again_without_haste(
    cluster: Cluster, server: ApiServer, operator: OperatorProcess
) -> None:
    server.faults.add(Fault(verb="create", plural="pods", status=403, times=None))
    await cluster.order()

    async def told() -> bool:
        status = await cluster.status("trainingjobs", "digits")
        return any("fault on order" in each.get("message", "") for each in status.get("conditions") or [])

    await until(told, operator)
    before = server.requests["create", "pods", 403]
    await asyncio.sleep(1.5)
    assert server.requests["create", "pods", 403] - before <= 2
    server.faults.clear()
    await until(cluster.pods, operator)


async def test_a_stormy_api_server_delays_a_job_and_loses_nothing(
    cluster: Cluster, server: ApiServer, operator: OperatorProcess
) -> None:
    await cluster.order(workers=2)
    for plural in ("pods", "services", "configmaps", "trainingjobs"):
        for status in (500, 429):
            server.faults.add(Fault(plural=plural, status=status, times=2, retry_after_s=0))
        for verb in ("create", "patch"):
            server.faults.add(Fault(verb=verb, plural=plural, status=409))

    async def both() -> list[Any]:
        found = server.objects("pods", labels={"flightpath.dev/owner": "tj.digits"})
        return found if len(found) == 2 else []

    pods = await until(both, operator)
    server.faults.clear()
    server.watches.drop()
    for pod in pods:
        await cluster.set_pod(pod, "Running")

    async def runs() -> bool:
        return await cluster.phase() == "Running"

    await until(runs, operator)


async def test_a_restart_is_counted_by_its_cause(cluster: Cluster, operator: OperatorProcess) -> None:
    await cluster.order(restart={"backoffSeconds": 0})
    (pod,) = await until(cluster.pods, operator)
    await cluster.set_pod(pod, "Failed", 1)

    async def counted() -> bool:
        metrics = await asyncio.to_thread(operator.metrics)
        return metrics.get('flightpath_operator_restarts_total{cause="WorkerFailed"}') == 1

    await until(counted, operator)


async def test_without_its_crds_the_operator_waits_and_says_so(tmp_path: Path) -> None:
    async with ApiServer() as server:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")

        async with OperatorProcess(kubeconfig, tmp_path / "operator.log") as operator:

            async def says_so() -> bool:
                return "CRDs are not installed: trainingjobs" in operator.log

            async def begun() -> bool:
                return bool(server.objects("pods"))

            await until(says_so, operator)
            install_crds(server)
            server.create(training_job())
            await until(begun, operator)
