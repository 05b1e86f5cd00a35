"""The operator as a process on the test API server: jobs, restarts of the operator, two at once, bad days."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.operator import OperatorProcess, install_crds, training_job


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as running:
        install_crds(running)
        yield running


@pytest.fixture
async def operator(server: ApiServer, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    async with OperatorProcess(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "operator.log") as running:
        yield running
        assert "Traceback" not in running.log, running.log


async def until(condition: Callable[[], Any], operator: OperatorProcess | None = None, timeout_s: float = 30.0) -> Any:
    """What the condition gives once it is true."""
    try:
        async with asyncio.timeout(timeout_s):
            while not (found := condition()):
                await asyncio.sleep(0.02)
    except TimeoutError as late:
        raise AssertionError("" if operator is None else operator.log[-4000:]) from late
    return found


def phase(server: ApiServer, name: str = "digits") -> str:
    job = server.find("trainingjobs", name)
    return "" if job is None else str((job.get("status") or {}).get("phase", ""))


def pods(server: ApiServer, name: str = "digits") -> list[dict[str, Any]]:
    return server.objects("pods", labels={"flightpath.dev/owner": f"tj.{name}"})


def set_pod(server: ApiServer, pod: dict[str, Any], phase: str, exit_code: int | None = None) -> None:
    """What a kubelet would report."""
    name = pod["metadata"]["name"]
    state: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    if exit_code is not None:
        state = {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed"}}
    scheduled = {"type": "PodScheduled", "status": "True"}
    container = {"name": pod["spec"]["containers"][0]["name"], "ready": exit_code is None, "state": state}
    container |= {"restartCount": 0, "image": "trainer:1", "imageID": ""}
    body = {"status": {"phase": phase, "conditions": [scheduled], "containerStatuses": [container]}}
    server.patch("pods", name, body, status=True)


async def test_a_job_runs_to_its_end(server: ApiServer, operator: OperatorProcess) -> None:
    server.create(training_job(workers=2))
    workers = await until(lambda: len(pods(server)) == 2 and pods(server), operator)
    for pod in workers:
        set_pod(server, pod, "Running")
    await until(lambda: phase(server) == "Running", operator)
    for pod in workers:
        set_pod(server, pod, "Succeeded", 0)
    await until(lambda: phase(server) == "Succeeded", operator)
    reasons = [event["reason"] for event in server.objects("events")]
    assert len(reasons) == len(set(reasons)), reasons
    server.delete("trainingjobs", "digits")
    await until(lambda: server.find("trainingjobs", "digits") is None, operator)
    await until(lambda: not pods(server), operator)


async def test_a_failed_worker_restarts_the_whole_group(server: ApiServer, operator: OperatorProcess) -> None:
    server.create(training_job(workers=2, restart={"backoffSeconds": 0, "maxRestarts": 1}))
    first = await until(lambda: len(pods(server)) == 2 and pods(server), operator)
    for pod in first:
        set_pod(server, pod, "Running")
    set_pod(server, first[1], "Failed", 1)
    names = {pod["metadata"]["name"] for pod in first}
    second = await until(
        lambda: len(new := [p for p in pods(server) if p["metadata"]["name"] not in names]) == 2 and new, operator
    )
    assert not names & {pod["metadata"]["name"] for pod in pods(server)}
    for pod in second:
        set_pod(server, pod, "Running")
    await until(lambda: phase(server) == "Running", operator)
    set_pod(server, second[0], "Failed", 1)
    await until(lambda: phase(server) == "Failed", operator)
    metrics = await asyncio.to_thread(operator.metrics)
    assert metrics['flightpath_operator_restarts_total{cause="WorkerFailed"}'] >= 1


async def test_a_restarted_operator_touches_nothing_that_is_well(server: ApiServer, operator: OperatorProcess) -> None:
    for name in ("one", "two", "three"):
        server.create(training_job(name))
    await until(lambda: all(pods(server, name) for name in ("one", "two", "three")), operator)
    for name in ("one", "two", "three"):
        set_pod(server, pods(server, name)[0], "Running")
    await until(lambda: all(phase(server, name) == "Running" for name in ("one", "two", "three")), operator)
    before = {str(o["metadata"]) for kind in ("pods", "services", "configmaps") for o in server.objects(kind)}
    operator.process.kill()  # type: ignore[union-attr]
    operator.process.wait()  # type: ignore[union-attr]
    operator.start()
    await until(lambda: operator.log.count("caches are filled") == 2, operator)
    server.create(training_job("four"))
    await until(lambda: pods(server, "four"), operator)
    after = {str(o["metadata"]) for kind in ("pods", "services", "configmaps") for o in server.objects(kind)}
    assert before <= after


async def test_of_two_operators_one_works_and_the_other_takes_over(
    server: ApiServer, operator: OperatorProcess, tmp_path: Path
) -> None:
    await until(lambda: "caches are filled" in operator.log, operator)
    async with OperatorProcess(server.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "second.log") as second:
        await until(lambda: "waiting for the lease" in second.log, second)
        assert await asyncio.to_thread(operator.end) == 0
        await until(lambda: "caches are filled" in second.log, second)
        server.create(training_job())
        await until(lambda: pods(server), second)
        operator.start()


async def test_an_edited_and_a_deleted_child_come_back(server: ApiServer, operator: OperatorProcess) -> None:
    server.create(training_job())
    await until(lambda: pods(server), operator)
    set_pod(server, pods(server)[0], "Running")
    await until(lambda: phase(server) == "Running", operator)
    environment = server.objects("configmaps", labels={"flightpath.dev/owner": "tj.digits"})[0]["metadata"]["name"]
    server.delete("services", "digits")
    server.delete("configmaps", environment)
    await until(lambda: server.find("services", "digits") and server.find("configmaps", environment), operator)


async def test_a_refused_pod_is_told_in_the_status_and_tried_again_without_haste(
    server: ApiServer, operator: OperatorProcess
) -> None:
    server.faults.add(Fault(verb="create", plural="pods", status=403, times=None))
    server.create(training_job())

    def told() -> list[str]:
        job = server.get("trainingjobs", "digits")
        conditions = (job.get("status") or {}).get("conditions") or []
        return [c["message"] for c in conditions if "fault on order" in c.get("message", "")]

    await until(told, operator)
    before = server.requests["create", "pods", 403]
    await asyncio.sleep(1.5)
    assert server.requests["create", "pods", 403] - before <= 2
    server.faults.clear()
    await until(lambda: pods(server), operator)


async def test_a_stormy_api_server_delays_a_job_and_loses_nothing(server: ApiServer, operator: OperatorProcess) -> None:
    for plural in ("pods", "services", "configmaps", "trainingjobs"):
        for status in (500, 429):
            server.faults.add(Fault(plural=plural, status=status, times=2, retry_after_s=0))
        for verb in ("create", "patch"):
            server.faults.add(Fault(verb=verb, plural=plural, status=409))
    server.create(training_job(workers=2))
    await until(lambda: len(pods(server)) == 2, operator)
    server.watches.drop()
    for pod in pods(server):
        set_pod(server, pod, "Running")
    await until(lambda: phase(server) == "Running", operator)


async def test_without_its_crds_the_operator_waits_and_says_so(tmp_path: Path) -> None:
    async with ApiServer() as server:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        async with OperatorProcess(kubeconfig, tmp_path / "operator.log") as operator:
            await until(lambda: "CRDs are not installed: trainingjobs" in operator.log, operator)
            install_crds(server)
            server.create(training_job())
            await until(lambda: pods(server), operator)
