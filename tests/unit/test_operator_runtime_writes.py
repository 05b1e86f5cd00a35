"""Client, executor, lease and watches against the test API server: what is written, and what happens when it fails."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flightpath_operator.ownership import complete_child
from flightpath_operator.plan import FINALIZER, MANAGER, Delete, Plan
from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.client import Client, ClientSettings
from flightpath_operator.runtime.errors import Unavailable
from flightpath_operator.runtime.executor import Executor, status_patch
from flightpath_operator.runtime.leader import Leadership, LeaseSettings
from flightpath_operator.runtime.reflector import Reflector, WatchSettings
from flightpath_operator.runtime.resources import BY_KIND, TRAINING_JOB, Resource
from kubernetes.aio.client import Configuration

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.operator import install_crds, training_job

CONFIG_MAP = BY_KIND["v1", "ConfigMap"]
QUICK = ClientSettings(first_backoff_s=0.01, max_backoff_s=0.05, timeout_s=5.0)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as running:
        install_crds(running)
        yield running


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    made = Client(Configuration(host=server.url), QUICK)
    yield made
    await made.close()


def config_map(parent: dict[str, Any], name: str = "one", value: str = "1") -> dict[str, Any]:
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}}
    return complete_child(parent, child)


async def test_a_plan_is_carried_out_once_and_its_answers_are_known_at_once(server: ApiServer, client: Client) -> None:
    caches: dict[Resource, Cache] = {CONFIG_MAP: Cache(), TRAINING_JOB: Cache()}
    executor = Executor(client, caches.get)
    parent = server.create(training_job())
    caches[TRAINING_JOB].put(parent)
    plan = Plan(creates=(config_map(parent),), status={"phase": "Pending"}, finalizer=True)
    outcome = await executor.carry_out(parent, plan)
    assert (outcome.problems, outcome.conflict, outcome.writes) == ((), False, 3)
    written = server.get("trainingjobs", "digits")
    assert (written["status"], written["metadata"]["finalizers"]) == ({"phase": "Pending"}, [FINALIZER])
    assert caches[CONFIG_MAP].get("default", "one") is not None
    known = caches[TRAINING_JOB].get("default", "digits")
    assert known is not None
    again = await executor.carry_out(known, replace(plan, creates=()))
    assert again.writes == 0


async def test_a_child_that_a_crash_left_behind_is_adopted_and_a_strangers_is_not(
    server: ApiServer, client: Client
) -> None:
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    server.create(config_map(parent))
    assert (await executor.carry_out(parent, Plan(creates=(config_map(parent),)))).problems == ()
    server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}})
    (problem,) = (await executor.carry_out(parent, Plan(creates=(config_map(parent, "two"),)))).problems
    assert problem == "ConfigMap two exists and is not of this TrainingJob"


async def test_a_refusal_becomes_a_problem_and_the_status_is_written_all_the_same(
    server: ApiServer, client: Client
) -> None:
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    server.faults.add(Fault(verb="create", plural="configmaps", status=403))
    plan = Plan(creates=(config_map(parent),), status={"phase": "Pending"})
    (problem,) = (await executor.carry_out(parent, plan)).problems
    assert problem.startswith("cannot create ConfigMap one: fault on order")
    assert server.get("trainingjobs", "digits")["status"] == {"phase": "Pending"}


async def test_what_is_not_owned_is_never_deleted(server: ApiServer, client: Client) -> None:
    parent = server.create(training_job())
    stranger = server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}})
    with pytest.raises(AssertionError, match="not its own"):
        await Executor(client, {CONFIG_MAP: Cache()}.get).carry_out(parent, Plan(deletes=(Delete(target=stranger),)))
    assert server.find("configmaps", "other") is not None


async def test_a_namesake_that_came_later_is_not_deleted_in_its_place(server: ApiServer, client: Client) -> None:
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    before = server.create(config_map(parent))
    server.delete("configmaps", "one")
    server.create(config_map(parent))
    outcome = await executor.carry_out(parent, Plan(deletes=(Delete(target=before),)))
    assert outcome.conflict
    assert server.find("configmaps", "one") is not None


async def test_a_status_that_somebody_else_wrote_meanwhile_is_not_overwritten(
    server: ApiServer, client: Client
) -> None:
    parent = server.create(training_job())
    server.patch("trainingjobs", "digits", {"status": {"phase": "Running", "attempt": 3}}, status=True)
    outcome = await Executor(client, {}.get).carry_out(parent, Plan(status={"phase": "Pending", "attempt": 1}))
    assert outcome.conflict
    assert server.get("trainingjobs", "digits")["status"]["attempt"] == 3


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_overloaded_server_is_asked_again(server: ApiServer, client: Client, status: int) -> None:
    parent = server.create(training_job())
    server.faults.add(Fault(verb="create", plural="configmaps", status=status, times=2, retry_after_s=0))
    outcome = await Executor(client, {CONFIG_MAP: Cache()}.get).carry_out(parent, Plan(creates=(config_map(parent),)))
    assert outcome.problems == ()
    assert server.find("configmaps", "one") is not None


async def test_a_server_that_stays_away_is_an_error_after_a_few_attempts(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(verb="create", plural="configmaps", status=503, times=None))
    parent = server.create(training_job())
    with pytest.raises(Unavailable):
        await Executor(client, {CONFIG_MAP: Cache()}.get).carry_out(parent, Plan(creates=(config_map(parent),)))
    assert server.requests["create", "configmaps", 503] == QUICK.attempts


def test_a_status_patch_holds_only_what_differs() -> None:
    present = {"phase": "Running", "workers": {"ready": 1, "desired": 2}, "old": 1}
    wanted = {"phase": "Running", "workers": {"ready": 2, "desired": 2}}
    assert status_patch(present, wanted) == {"workers": {"ready": 2}, "old": None}
    assert status_patch(wanted, wanted) == {}


def leadership(client: Client, identity: str, clock: Any) -> Leadership:
    settings = LeaseSettings(lease_s=10, renew_deadline_s=5.0, retry_s=0.005)
    return Leadership(client, namespace="default", name="op", identity=identity, settings=settings, clock=clock)


async def test_one_of_two_leads_and_the_other_follows_when_it_lets_go(server: ApiServer, client: Client) -> None:
    first, second = (leadership(client, name, lambda: 0.0) for name in ("one", "two"))
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await first.release()
    await asyncio.wait_for(waiting, 5)
    assert server.get("leases.coordination.k8s.io", "op")["spec"]["holderIdentity"] == "two"
    assert await asyncio.wait_for(first.hold(), 5) == "another operator holds the lease"


async def test_a_leader_that_died_is_followed_when_its_lease_is_over(client: Client) -> None:
    now = 0.0
    await leadership(client, "one", lambda: now).acquire()
    waiting = asyncio.create_task(leadership(client, "two", lambda: now).acquire())
    await asyncio.sleep(0.03)
    now = 9.0
    await asyncio.sleep(0.03)
    assert not waiting.done()
    now = 10.1
    await asyncio.wait_for(waiting, 5)


async def test_a_leader_that_cannot_renew_steps_down_before_its_lease_is_over(
    server: ApiServer, client: Client
) -> None:
    now = 0.0
    leader = leadership(client, "one", lambda: now)
    await leader.acquire()
    server.faults.add(Fault(plural="leases", status=503, times=None))
    holding = asyncio.create_task(leader.hold())
    await asyncio.sleep(0.02)
    now = 5.1
    assert (await asyncio.wait_for(holding, 10)).startswith("the lease could not be renewed")


def managed(name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": MANAGER}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


async def wait_for(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_watch_follows_what_happens_and_survives_its_cuts(server: ApiServer, client: Client) -> None:
    server.create(managed("before"))
    cache, changed = Cache(), []
    reflector = Reflector(
        client,
        CONFIG_MAP,
        cache,
        selector=f"app.kubernetes.io/managed-by={MANAGER}",
        on_change=lambda obj: changed.append(obj["metadata"]["name"]),
        settings=WatchSettings(server_timeout_s=1.0, silence_s=5.0, first_backoff_s=0.01, max_backoff_s=0.05),
    )
    running = asyncio.create_task(reflector.run())
    try:
        await wait_for(lambda: reflector.ready.is_set())
        server.create(managed("after"))
        server.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of others"[:2]}})
        await wait_for(lambda: len(cache) == 2)
        server.watches.drop()
        server.delete("configmaps", "before")
        await wait_for(lambda: len(cache) == 1)
        assert changed == ["before", "after", "before"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_status_that_only_tells_of_missing_children_is_left_to_the_next_look(
    server: ApiServer, client: Client
) -> None:
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    plan = Plan(creates=(config_map(parent),), status={"phase": "Pending"})
    outcome = await executor.carry_out(parent, plan, may_postpone=True)
    assert (outcome.postponed, outcome.writes) == (True, 1)
    assert "status" not in server.get("trainingjobs", "digits")


@pytest.mark.parametrize(
    "change",
    [{"again_in": timedelta(0)}, {"patch_parent": {"metadata": {"labels": {"a": "b"}}}}, {"creates": ()}],
    ids=["a decision", "a patch of the parent", "nothing made"],
)
async def test_any_other_status_is_written_at_once(server: ApiServer, client: Client, change: dict[str, Any]) -> None:
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    plan = replace(Plan(creates=(config_map(parent),), status={"phase": "Pending"}), **change)
    assert not (await executor.carry_out(parent, plan, may_postpone=True)).postponed
    assert server.get("trainingjobs", "digits")["status"] == {"phase": "Pending"}


async def test_a_refused_child_is_told_at_once(server: ApiServer, client: Client) -> None:
    server.faults.add(Fault(verb="create", plural="configmaps", status=403))
    executor = Executor(client, {CONFIG_MAP: Cache()}.get)
    parent = server.create(training_job())
    plan = Plan(creates=(config_map(parent),), status={"phase": "Pending"})
    outcome = await executor.carry_out(parent, plan, may_postpone=True)
    assert not outcome.postponed
    assert len(outcome.problems) == 1
