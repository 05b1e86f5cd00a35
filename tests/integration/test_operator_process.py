"""The operator as a process: jobs, restarts of the operator, two at once, what others do to its children."""

from pathlib import Path
from typing import Any

from tests.fakes.operator import OperatorProcess
from tests.fakes.operator_cluster import Cluster, until

KINDS = ("pods", "services", "configmaps")


async def workers(cluster: Cluster, number: int, operator: OperatorProcess, name: str = "digits") -> list[Any]:
    """The job's pods, once there are as many."""

    async def all_there() -> list[Any]:
        found = await cluster.pods(name)
        return found if len(found) == number else []

    found: list[Any] = await until(all_there, operator)
    return found


async def reach(cluster: Cluster, phase: str, operator: OperatorProcess, name: str = "digits") -> None:
    async def reached() -> bool:
        return await cluster.phase(name) == phase

    await until(reached, operator)


async def running(cluster: Cluster, operator: OperatorProcess, name: str = "digits", number: int = 1) -> list[Any]:
    """The job's pods, once it runs."""
    pods = await workers(cluster, number, operator, name)
    for pod in pods:
        await cluster.set_pod(pod, "Running")
    await reach(cluster, "Running", operator, name)
    return pods


async def children(cluster: Cluster, name: str) -> set[tuple[str, str]]:
    """Uid and version of each child of a job."""
    found = [each["metadata"] for kind in KINDS for each in await cluster.objects(kind, f"tj.{name}")]
    return {(each["uid"], each["resourceVersion"]) for each in found}


async def test_a_job_runs_to_its_end(cluster: Cluster, operator: OperatorProcess) -> None:
    await cluster.order(workers=2)
    for pod in await running(cluster, operator, number=2):
        await cluster.set_pod(pod, "Succeeded", 0)
    await reach(cluster, "Succeeded", operator)
    reasons = [each["reason"] for each in await cluster.objects("events") if each["involvedObject"]["name"] == "digits"]
    assert len(reasons) == len(set(reasons)), reasons
    await cluster.delete("trainingjobs", "digits")

    async def gone() -> bool:
        return await cluster.find("trainingjobs", "digits") is None and not await cluster.pods()

    await until(gone, operator)


async def test_a_failed_worker_restarts_the_whole_group(cluster: Cluster, operator: OperatorProcess) -> None:
    await cluster.order(workers=2, restart={"backoffSeconds": 0, "maxRestarts": 1})
    first = await running(cluster, operator, number=2)
    await cluster.set_pod(first[1], "Failed", 1)
    names = {pod["metadata"]["name"] for pod in first}

    async def replaced() -> list[Any]:
        found = await cluster.pods()
        return found if len(found) == 2 and not names & {pod["metadata"]["name"] for pod in found} else []

    await until(replaced, operator)
    second = await running(cluster, operator, number=2)
    for pod in second:
        await cluster.set_pod(pod, "Failed", 1)
    await reach(cluster, "Failed", operator)
    status = await cluster.status("trainingjobs", "digits")
    assert (status["attempt"], status["lastFailure"]["exitCode"]) == (2, 1)


async def test_a_restarted_operator_touches_nothing_that_is_well(cluster: Cluster, operator: OperatorProcess) -> None:
    names = ("one", "two", "three")
    for name in names:
        await cluster.order(name)
    for name in names:
        await running(cluster, operator, name)
    before = {each for name in names for each in await children(cluster, name)}
    operator.process.kill()  # type: ignore[union-attr]
    operator.process.wait()  # type: ignore[union-attr]
    operator.start()
    await cluster.order("four")
    await workers(cluster, 1, operator, "four")
    assert {each for name in names for each in await children(cluster, name)} == before
    assert len(before) == 9


async def test_of_two_operators_one_works_and_the_other_takes_over(
    cluster: Cluster, operator: OperatorProcess, tmp_path: Path
) -> None:
    async def leads(each: OperatorProcess) -> bool:
        return "caches are filled" in each.log

    async def waits() -> bool:
        return "waiting for the lease" in second.log

    await until(lambda: leads(operator), operator)
    async with cluster.operator(tmp_path / "second.log") as second:
        await until(waits, second)
        assert await operator.stop() == 0
        await until(lambda: leads(second), second)
        await cluster.order()
        await workers(cluster, 1, second)


async def test_deleted_children_come_back(cluster: Cluster, operator: OperatorProcess) -> None:
    await cluster.order()
    await running(cluster, operator)
    names = {kind: (await cluster.objects(kind, "tj.digits"))[0]["metadata"]["name"] for kind in KINDS[1:]}
    for kind, name in names.items():
        await cluster.delete(kind, name)

    async def back() -> bool:
        return all([await cluster.find(kind, name) for kind, name in names.items()])

    await until(back, operator)


async def test_an_edited_child_is_set_back(cluster: Cluster, operator: OperatorProcess) -> None:
    await cluster.order()
    await running(cluster, operator)
    (environment,) = await cluster.objects("configmaps", "tj.digits")
    name, data = environment["metadata"]["name"], environment.get("data") or {}
    await cluster.patch("configmaps", name, {"data": {"MASTER_PORT": "1", "SURPRISE": "1"}})

    async def set_back() -> bool:
        return ((await cluster.find("configmaps", name) or {}).get("data") or {}) == data

    await until(set_back, operator)


async def test_a_strangers_object_is_left_alone_and_named(cluster: Cluster, operator: OperatorProcess) -> None:
    ports = {"ports": [{"port": 80}], "selector": {"app": "other"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits"}, "spec": ports}
    made = await cluster.create("services", service)
    await cluster.order()

    async def told() -> bool:
        return (await cluster.condition("trainingjobs", "digits", "Accepted")).get("reason") == "NameTaken"

    await until(told, operator)
    found = await cluster.find("services", "digits")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await cluster.delete("trainingjobs", "digits")

    async def gone() -> bool:
        return await cluster.find("trainingjobs", "digits") is None

    await until(gone, operator)
    assert await cluster.find("services", "digits")


async def test_a_quota_is_told_in_the_status_and_the_job_begins_once_there_is_room(
    cluster: Cluster, operator: OperatorProcess
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.create("resourcequotas", quota)

    async def counted() -> bool:
        found = await cluster.find("resourcequotas", "full") or {}
        return cluster.server is not None or bool(found.get("status", {}).get("hard"))

    await until(counted)
    await cluster.order()

    async def told() -> bool:
        status = await cluster.status("trainingjobs", "digits")
        return any("exceeded quota" in each.get("message", "") for each in status.get("conditions") or [])

    await until(told, operator)
    await cluster.delete("resourcequotas", "full")
    await workers(cluster, 1, operator)


async def test_a_job_that_outlives_its_operator_can_be_deleted_by_hand(
    cluster: Cluster, operator: OperatorProcess
) -> None:
    await cluster.order()
    await running(cluster, operator)
    assert await operator.stop() == 0
    await cluster.delete("trainingjobs", "digits")
    held = await cluster.find("trainingjobs", "digits")
    assert held is not None
    assert held["metadata"]["finalizers"] == ["flightpath.dev/operator"]
    # The command of docs/runbooks/operator-gone.md
    await cluster.patch("trainingjobs", "digits", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        left = [each for kind in KINDS for each in await cluster.objects(kind, "tj.digits")]
        return await cluster.find("trainingjobs", "digits") is None and not left

    await until(gone, timeout_s=60)
