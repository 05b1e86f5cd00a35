"""The test API server keeps the promises that operators build on: versions, status, finalizers, garbage, watches."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.errors import ApiError, forbidden
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.kubernetes.widgets import WIDGET, pod, widget

WIDGETS = "/apis/example.dev/v1/namespaces/default/widgets"
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        server.create(WIDGET)
        yield server


@pytest.fixture
async def http(server: ApiServer) -> AsyncIterator["Http"]:
    async with aiohttp.ClientSession(server.url) as session:
        yield Http(session)


class Http:
    """Requests that answer (status, document)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(self, method: str, path: str, body: Any = None, **rest: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, json=body, **rest) as response:
            return response.status, await response.json()

    async def merge(self, path: str, body: Any) -> tuple[int, Any]:
        return await self("PATCH", path, body, headers=MERGE)

    async def events(self, path: str, seconds: int = 1, **query: str) -> list[dict[str, Any]]:
        """Everything that a watch of some seconds receives."""
        params = {"watch": "true", "timeoutSeconds": str(seconds), **query}
        async with self.session.get(path, params=params) as response:
            return [json.loads(line) async for line in response.content]


async def test_a_created_object_has_uid_generation_and_version(http: Http) -> None:
    status, made = await http("POST", WIDGETS, widget("one"))
    assert status == 201
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["uid"]
    assert made["spec"]["colour"] == "red"


async def test_a_namesake_is_a_conflict(http: Http) -> None:
    await http("POST", WIDGETS, widget("one"))
    status, answer = await http("POST", WIDGETS, widget("one"))
    assert (status, answer["reason"]) == (409, "AlreadyExists")


async def test_a_spec_against_the_schema_is_refused_with_causes(http: Http) -> None:
    status, answer = await http("POST", WIDGETS, widget("one", size=0, colour="green"))
    assert (status, answer["reason"]) == (422, "Invalid")
    found = {cause["field"]: cause["reason"] for cause in answer["details"]["causes"]}
    assert found == {"spec.size": "FieldValueInvalid", "spec.colour": "FieldValueNotSupported"}


async def test_unknown_fields_are_dropped_or_refused_when_strict(http: Http) -> None:
    body = widget("one", shape="round")
    assert (await http("POST", WIDGETS, body, params={"fieldValidation": "Strict"}))[0] == 400
    assert "shape" not in (await http("POST", WIDGETS, body))[1]["spec"]


async def test_status_and_spec_are_written_apart(http: Http) -> None:
    await http("POST", WIDGETS, {**widget("one"), "status": {"phase": "Up"}})
    body: dict[str, Any] = {"spec": {"size": 2}, "status": {"phase": "Up"}}
    _, whole = await http.merge(f"{WIDGETS}/one", body)
    assert (whole["spec"]["size"], whole.get("status"), whole["metadata"]["generation"]) == (2, None, 2)
    body["spec"]["size"] = 3
    _, status = await http.merge(f"{WIDGETS}/one/status", body)
    assert (status["spec"]["size"], status["status"], status["metadata"]["generation"]) == (2, {"phase": "Up"}, 2)


async def test_a_write_that_changes_nothing_keeps_the_version(http: Http) -> None:
    _, made = await http("POST", WIDGETS, widget("one"))
    _, same = await http.merge(f"{WIDGETS}/one", {"spec": {"size": 1}})
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_stale_version_is_a_conflict(http: Http) -> None:
    _, made = await http("POST", WIDGETS, widget("one"))
    await http.merge(f"{WIDGETS}/one", {"spec": {"size": 2}})
    assert (await http("PUT", f"{WIDGETS}/one", made))[0] == 409
    body = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"size": 3}}
    assert (await http.merge(f"{WIDGETS}/one", body))[0] == 409


async def test_a_put_of_a_custom_resource_needs_its_version(http: Http) -> None:
    await http("POST", WIDGETS, widget("one"))
    assert (await http("PUT", f"{WIDGETS}/one", widget("one", size=2)))[0] == 422


async def test_a_delete_checks_its_preconditions(http: Http) -> None:
    await http("POST", WIDGETS, widget("one"))
    status, answer = await http("DELETE", f"{WIDGETS}/one", {"preconditions": {"uid": "another"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert (await http("GET", f"{WIDGETS}/one"))[0] == 200


async def test_a_finalizer_holds_a_deleted_object(http: Http) -> None:
    body = widget("one")
    body["metadata"]["finalizers"] = ["example.dev/hold"]
    await http("POST", WIDGETS, body)
    _, answer = await http("DELETE", f"{WIDGETS}/one")
    assert answer["metadata"]["deletionTimestamp"]
    added = {"metadata": {"finalizers": ["example.dev/hold", "example.dev/more"]}}
    assert (await http.merge(f"{WIDGETS}/one", added))[0] == 422
    await http.merge(f"{WIDGETS}/one", {"metadata": {"finalizers": None}})
    assert (await http("GET", f"{WIDGETS}/one"))[0] == 404


async def test_dependents_follow_their_owner(server: ApiServer, http: Http) -> None:
    owner = server.create(widget("one"))
    reference = {"apiVersion": "example.dev/v1", "kind": "Widget", "name": "one", "uid": owner["metadata"]["uid"]}
    server.create(pod("child", owners=[reference]))
    await http("DELETE", f"{WIDGETS}/one")
    await until(lambda: server.find("pods", "child") is None)


async def test_a_foreground_delete_keeps_the_owner_until_blocking_dependents_are_gone(
    server: ApiServer, http: Http
) -> None:
    owner = server.create(widget("one"))
    reference = {"apiVersion": "example.dev/v1", "kind": "Widget", "name": "one", "uid": owner["metadata"]["uid"]}
    child = pod("child", owners=[{**reference, "blockOwnerDeletion": True}])
    child["metadata"]["finalizers"] = ["example.dev/hold"]
    server.create(child)
    await http("DELETE", f"{WIDGETS}/one", {"propagationPolicy": "Foreground"})
    await until(lambda: "deletionTimestamp" in server.get("pods", "child")["metadata"])
    assert server.get("widgets", "one")["metadata"]["finalizers"] == ["foregroundDeletion"]
    server.patch("pods", "child", {"metadata": {"finalizers": None}})
    await until(lambda: server.find("widgets", "one") is None)


async def test_orphans_lose_their_reference_and_stay(server: ApiServer, http: Http) -> None:
    owner = server.create(widget("one"))
    reference = {"apiVersion": "example.dev/v1", "kind": "Widget", "name": "one", "uid": owner["metadata"]["uid"]}
    server.create(pod("child", owners=[reference]))
    await http("DELETE", f"{WIDGETS}/one", {"propagationPolicy": "Orphan"})
    await until(lambda: server.find("widgets", "one") is None)
    assert "ownerReferences" not in server.get("pods", "child")["metadata"]


async def test_a_scheduled_pod_stays_for_its_grace_until_the_kubelet_lets_it_go(server: ApiServer, http: Http) -> None:
    server.create(pod("one"))
    assert (await http("POST", f"{PODS}/one/binding", {"target": {"kind": "Node", "name": "n"}}))[0] == 201
    assert (await http("POST", f"{PODS}/one/binding", {"target": {"kind": "Node", "name": "m"}}))[0] == 409
    _, leaving = await http("DELETE", f"{PODS}/one")
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 30
    await http("DELETE", f"{PODS}/one", {"gracePeriodSeconds": 0})
    assert server.find("pods", "one") is None


async def test_a_deleted_namespace_takes_everything_along(server: ApiServer, http: Http) -> None:
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    server.create(widget("one"), namespace="team")
    await http("DELETE", "/api/v1/namespaces/team")
    await until(lambda: server.find("namespaces", "team") is None)
    assert server.objects("widgets", "team") == []


async def test_a_watch_continues_from_a_version(server: ApiServer, http: Http) -> None:
    made = server.create(widget("one"))
    server.patch("widgets", "one", {"spec": {"size": 2}})
    server.delete("widgets", "one")
    events = await http.events(WIDGETS, resourceVersion=made["metadata"]["resourceVersion"])
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


async def test_an_object_that_leaves_the_selection_is_deleted_for_the_watcher(server: ApiServer, http: Http) -> None:
    made = server.create(pod("one", labels={"app": "a"}))
    server.patch("pods", "one", {"metadata": {"labels": {"app": "b"}}})
    server.patch("pods", "one", {"metadata": {"labels": {"app": "a"}}})
    version = made["metadata"]["resourceVersion"]
    events = await http.events(PODS, resourceVersion=version, labelSelector="app=a")
    assert [event["type"] for event in events] == ["DELETED", "ADDED"]


async def test_a_forgotten_version_is_gone(server: ApiServer, http: Http) -> None:
    made = server.create(widget("one"))
    server.patch("widgets", "one", {"spec": {"size": 2}})
    server.operations.store.compact()
    query = {"watch": "true", "resourceVersion": made["metadata"]["resourceVersion"]}
    status, answer = await http("GET", WIDGETS, params=query)
    assert (status, answer["reason"]) == (410, "Expired")


async def test_an_open_watch_learns_in_the_stream_that_it_expired(server: ApiServer, http: Http) -> None:
    watching = asyncio.create_task(http.events(WIDGETS, seconds=20))
    await until(lambda: server.watches.count("widgets") == 1)
    server.watches.expire("widgets")
    events = await watching
    assert [(event["type"], event["object"]["code"]) for event in events] == [("ERROR", 410)]


async def test_bookmarks_tell_the_version_of_a_quiet_watch() -> None:
    async with ApiServer(bookmark_interval_s=0.1) as server, aiohttp.ClientSession(server.url) as session:
        server.create(pod("one"))
        events = await Http(session).events("/api/v1/configmaps", allowWatchBookmarks="true")
        assert {event["type"] for event in events} == {"BOOKMARK"}
        assert events[-1]["object"]["metadata"]["resourceVersion"] == str(server.operations.store.revision)


async def test_a_silent_watch_sends_nothing_until_it_is_released(server: ApiServer, http: Http) -> None:
    watching = asyncio.create_task(http.events(WIDGETS, seconds=1))
    await until(lambda: server.watches.count("widgets") == 1)
    server.watches.silence("widgets")
    server.create(widget("one"))
    assert await watching == []


async def test_a_list_comes_in_pages(server: ApiServer, http: Http) -> None:
    for name in "abcde":
        server.create(widget(name))
    seen, query = [], {"limit": "2"}
    while True:
        _, page = await http("GET", WIDGETS, params=query)
        seen += [item["metadata"]["name"] for item in page["items"]]
        if "continue" not in page["metadata"]:
            break
        query["continue"] = page["metadata"]["continue"]
    assert seen == list("abcde")


@pytest.mark.parametrize(
    ("selector", "names"),
    [("app=a", "ab"), ("app!=a", "c"), ("app in (a,b),!gone", "b"), ("gone", "a"), ("app notin (a)", "c")],
)
async def test_label_selectors_select(server: ApiServer, http: Http, selector: str, names: str) -> None:
    server.create(pod("a", labels={"app": "a", "gone": "1"}))
    server.create(pod("b", labels={"app": "a"}))
    server.create(pod("c"))
    _, found = await http("GET", PODS, params={"labelSelector": selector})
    assert "".join(item["metadata"]["name"] for item in found["items"]) == names


async def test_field_selectors_select_and_unknown_fields_are_refused(server: ApiServer, http: Http) -> None:
    server.create(pod("one"))
    assert len((await http("GET", PODS, params={"fieldSelector": "status.phase=Pending"}))[1]["items"]) == 1
    assert (await http("GET", PODS, params={"fieldSelector": "spec.hostname=a"}))[0] == 400


async def test_a_json_patch_tests_before_it_writes(http: Http) -> None:
    await http("POST", WIDGETS, widget("one"))
    headers = {"Content-Type": "application/json-patch+json"}
    patch = [{"op": "test", "path": "/spec/size", "value": 5}, {"op": "replace", "path": "/spec/size", "value": 2}]
    assert (await http("PATCH", f"{WIDGETS}/one", patch, headers=headers))[0] == 422
    assert (await http("PATCH", f"{WIDGETS}/one", patch[1:], headers=headers))[1]["spec"]["size"] == 2


async def test_a_dry_run_changes_nothing(server: ApiServer, http: Http) -> None:
    status, answer = await http("POST", WIDGETS, widget("one"), params={"dryRun": "All"})
    assert (status, answer["spec"]["colour"]) == (201, "red")
    assert server.find("widgets", "one") is None


async def test_the_scale_subresource_moves_the_replicas(server: ApiServer, http: Http) -> None:
    server.create(widget("one"))
    _, scale = await http.merge(f"{WIDGETS}/one/scale", {"spec": {"replicas": 4}})
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 4)
    assert server.get("widgets", "one")["spec"]["size"] == 4


async def test_faults_happen_as_often_as_ordered(server: ApiServer, http: Http) -> None:
    server.faults.add(Fault(verb="get", plural="widgets", status=429, retry_after_s=3, times=2))
    server.create(widget("one"))
    async with http.session.get(f"{WIDGETS}/one") as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")
    assert [(await http("GET", f"{WIDGETS}/one"))[0] for _ in range(2)] == [429, 200]


async def test_an_answer_may_be_lost_after_the_write(server: ApiServer, http: Http) -> None:
    server.faults.add(Fault(verb="create", plural="widgets", lost=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await http("POST", WIDGETS, widget("one"))
    assert server.find("widgets", "one") is not None


async def test_a_slow_server_answers_late(server: ApiServer, http: Http) -> None:
    server.faults.add(Fault(delay=timedelta(milliseconds=200)))
    started = asyncio.get_running_loop().time()
    await http("GET", WIDGETS)
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_a_request_without_a_known_token_is_unauthorized() -> None:
    async with ApiServer(tokens={"good": "system:admin"}) as server, aiohttp.ClientSession(server.url) as session:
        http = Http(session)
        assert (await http("GET", PODS))[0] == 401
        assert (await http("GET", PODS, headers={"Authorization": "Bearer good"}))[0] == 200


async def test_a_quota_counts_pods(server: ApiServer, http: Http) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    server.create(quota)
    assert (await http("POST", PODS, pod("one")))[0] == 201
    status, answer = await http("POST", PODS, pod("two"))
    assert status == 403
    assert "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1" in answer["message"]


async def test_a_hook_refuses_like_a_webhook(server: ApiServer, http: Http) -> None:
    server.refuse = lambda call, document: forbidden("", call.plural, "x", "no") if call.plural == "pods" else None
    assert (await http("POST", PODS, pod("one")))[0] == 403
    assert (await http("POST", WIDGETS, widget("one")))[0] == 201


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"containers": []}, 422),
        ({"containers": [{"name": "Bad_Name", "image": "x"}]}, 422),
        ({"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": 1}]}]}, 400),
        ({"serviceAccountName": "stranger"}, 403),
        ({"priorityClassName": "unknown"}, 403),
    ],
)
async def test_a_bad_pod_is_refused(http: Http, change: dict[str, Any], status: int) -> None:
    body = pod("one")
    body["spec"] |= change
    assert (await http("POST", PODS, body))[0] == status


async def test_a_pods_containers_do_not_change_but_for_their_image(http: Http) -> None:
    await http("POST", PODS, pod("one"))
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    image = {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}
    assert (await http("PATCH", f"{PODS}/one", image, headers=headers))[0] == 200
    command = {"spec": {"containers": [{"name": "main", "command": ["other"]}]}}
    assert (await http("PATCH", f"{PODS}/one", command, headers=headers))[0] == 422


async def test_bad_bodies_and_paths_have_their_own_errors(http: Http) -> None:
    assert (await http("GET", "/apis/example.dev/v1/unknown"))[0] == 404
    assert (await http("POST", WIDGETS, ["no", "object"]))[0] == 400
    assert (await http("POST", WIDGETS, {**widget("one"), "kind": "Gadget"}))[0] == 400
    async with http.session.post(WIDGETS, data=b"{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
    async with http.session.post(WIDGETS, data=b"k8s", headers={"Content-Type": "application/x-thing"}) as response:
        assert response.status == 415


async def test_an_old_server_serves_old_versions_only() -> None:
    async with ApiServer(minor=20) as server, aiohttp.ClientSession(server.url) as session:
        http = Http(session)
        assert (await http("GET", "/apis/policy/v1"))[0] == 404
        _, listed = await http("GET", "/apis/autoscaling/v2beta2")
        assert "horizontalpodautoscalers" in [each["name"] for each in listed["resources"]]
        assert (await http("GET", "/version"))[1]["minor"] == "20"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda crd: crd["metadata"].update(name="other.example.dev"),
        lambda crd: crd["spec"]["versions"][0].update(storage=False),
        lambda crd: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].pop("type"),
        lambda crd: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].update(x={}),
    ],
    ids=["name", "no storage version", "no root type", "untyped property"],
)
async def test_a_definition_that_is_not_structural_is_refused(spoil: Any) -> None:
    crd = json.loads(json.dumps(WIDGET))
    spoil(crd)
    async with ApiServer() as server:
        with pytest.raises(ApiError) as refused:
            server.create(crd)
    assert refused.value.code == 422


async def until(holds: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)
