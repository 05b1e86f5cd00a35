"""One suite for the test API server and for a real control plane: what a client sees must be the same.

KUBECONFIG_REAL names the real one's kubeconfig (user with every right); without it only the test server is asked.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.app import ApiServer
from tests.fakes.kubernetes.client import Client, Refused, connect, path_of
from tests.fakes.kubernetes.widgets import WIDGET, pod, widget

Object = dict[str, Any]
REAL = os.environ.get("KUBECONFIG_REAL", "")
CRDS = path_of("apiextensions.k8s.io/v1", "customresourcedefinitions")


class Cluster:
    """A client and a namespace of its own."""

    def __init__(self, client: Client, namespace: str, *, counts_quotas: bool) -> None:
        """`counts_quotas`: a controller writes into a quota's status what is used, and until then nothing fits."""
        self.client = client
        self.counts_quotas = counts_quotas
        self.namespace = namespace
        self.request = client.request
        self.merge = client.merge
        self.find = client.find

    def path(self, plural: str, name: str = "", subresource: str = "", *, namespace: str = "") -> str:
        version = "example.dev/v1" if plural == "widgets" else "v1"
        return path_of(version, plural, namespace or self.namespace, name, subresource)

    async def create(self, plural: str, document: Object, **query: str) -> Object:
        return await self.request("POST", self.path(plural), document, **query)

    async def refused(self, method: str, path: str, body: Any = None, **options: str) -> tuple[int, str]:
        """Status and reason of a request that must fail."""
        with pytest.raises(Refused) as refused:
            await self.request(method, path, body, **options)
        return refused.value.status, refused.value.reason

    async def gone(self, path: str) -> None:
        async with asyncio.timeout(30):
            while await self.find(path) is not None:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def cluster_at(kubeconfig: Path, *, counts_quotas: bool) -> AsyncIterator[Cluster]:
    namespace = f"parity-{uuid.uuid4().hex[:8]}"
    async with connect(kubeconfig) as client:
        if await client.find(f"{CRDS}/widgets.example.dev") is None:
            await client.request("POST", CRDS, WIDGET)
        await established(client)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await client.request("POST", "/api/v1/namespaces", body)
        await pods_are_admitted(client, namespace)
        yield Cluster(client, namespace, counts_quotas=counts_quotas)
        await client.request("DELETE", f"/api/v1/namespaces/{namespace}")


async def pods_are_admitted(client: Client, namespace: str) -> None:
    """A new namespace has no service account, and in old versions that one no token, for some moments."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.request("POST", path_of("v1", "pods", namespace), pod("probe"), dryRun="All")
                return
            except Refused:
                await asyncio.sleep(0.05)


async def established(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            found = await client.find("/apis/example.dev/v1")
            if found is not None and found["resources"]:
                return
            await asyncio.sleep(0.1)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "real":
        if not REAL:
            pytest.skip("KUBECONFIG_REAL names no control plane")
        async with cluster_at(Path(REAL), counts_quotas=True) as cluster:
            yield cluster
        return
    async with ApiServer(minor=20) as server:
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
        async with cluster_at(kubeconfig, counts_quotas=False) as cluster:
            yield cluster


async def test_creation_fills_in_and_prunes(cluster: Cluster) -> None:
    made = await cluster.create("widgets", widget("one", parts=[{"name": "a"}], unknown=1))
    assert made["spec"] == {"size": 1, "colour": "red", "parts": [{"name": "a", "count": 1}]}
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"size": 0}, ["spec.size"]),
        ({"size": "big"}, ["spec.size"]),
        ({"size": 10, "colour": "green"}, ["spec.colour", "spec.size"]),
        ({"size": 1, "parts": [{"count": 1}]}, ["spec.parts.name"]),
        ({"size": 1, "labels": {"a": "B"}}, ["spec.labels.a"]),
        ({"size": 1, "port": True}, ["spec.port"]),
        ({}, ["spec.size"]),
    ],
    ids=["minimum", "type", "two", "required", "pattern", "int or string", "missing"],
)
async def test_a_bad_spec_names_its_fields(cluster: Cluster, spec: Object, fields: list[str]) -> None:
    document = {**widget("one"), "spec": spec}
    async with cluster.client.session.post(cluster.path("widgets"), json=document) as response:
        answer = await response.json()
    assert (response.status, answer["reason"]) == (422, "Invalid")
    named = {cause["field"].lstrip(".") for cause in answer["details"]["causes"]}
    assert sorted(field.replace("[0]", "").replace("[a]", ".a") for field in named - {"<nil>"}) == fields


async def test_a_namesake_and_a_missing_name(cluster: Cluster) -> None:
    await cluster.create("widgets", widget("one"))
    assert await cluster.refused("POST", cluster.path("widgets"), widget("one")) == (409, "AlreadyExists")
    assert await cluster.refused("GET", cluster.path("widgets", "two")) == (404, "NotFound")
    assert await cluster.refused("POST", cluster.path("widgets", namespace="nowhere"), widget("one")) == (
        404,
        "NotFound",
    )


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254, "with/slash"])
async def test_a_bad_name_is_invalid(cluster: Cluster, name: str) -> None:
    assert await cluster.refused("POST", cluster.path("widgets"), widget(name)) == (422, "Invalid")


@pytest.mark.parametrize("labels", [{"a": "b c"}, {"a": "x" * 64}, {"a/b/c": "d"}, {"-a": "b"}])
async def test_a_bad_label_is_invalid(cluster: Cluster, labels: dict[str, str]) -> None:
    document = widget("one")
    document["metadata"]["labels"] = labels
    assert await cluster.refused("POST", cluster.path("widgets"), document) == (422, "Invalid")


async def test_status_is_isolated_and_counts_no_generation(cluster: Cluster) -> None:
    await cluster.create("widgets", {**widget("one"), "status": {"phase": "Early"}})
    main, status = cluster.path("widgets", "one"), cluster.path("widgets", "one", "status")
    body = {"spec": {"size": 2}, "status": {"phase": "Up"}, "metadata": {"labels": {"a": "b"}}}
    whole = await cluster.merge(main, body)
    assert (whole["spec"]["size"], whole.get("status"), whole["metadata"]["generation"]) == (2, None, 2)
    body = {"spec": {"size": 3}, "status": {"phase": "Up"}, "metadata": {"annotations": {"a": "b"}}}
    part = await cluster.merge(status, body)
    assert (part["spec"]["size"], part["status"], part["metadata"]["generation"]) == (2, {"phase": "Up"}, 2)
    assert "annotations" not in part["metadata"]
    labelled = await cluster.merge(main, {"metadata": {"labels": {"a": "c"}}})
    assert labelled["metadata"]["generation"] == 2


async def test_a_change_of_nothing_keeps_the_version(cluster: Cluster) -> None:
    made = await cluster.create("widgets", widget("one"))
    same = await cluster.merge(cluster.path("widgets", "one"), {"spec": {"size": 1}})
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_writes_with_a_stale_version_or_uid_conflict(cluster: Cluster) -> None:
    made = await cluster.create("widgets", widget("one"))
    path = cluster.path("widgets", "one")
    await cluster.merge(path, {"spec": {"size": 2}})
    assert await cluster.refused("PUT", path, made) == (409, "Conflict")
    merge = {"kind": "application/merge-patch+json"}
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"size": 3}}
    assert await cluster.refused("PATCH", path, stale, **merge) == (409, "Conflict")
    other: Object = {"metadata": {"uid": str(uuid.uuid4())}, "status": {"phase": "Up"}}
    assert await cluster.refused("PATCH", path, other, **merge) == (422, "Invalid")
    assert (await cluster.merge(f"{path}/status", other))["status"] == {"phase": "Up"}
    assert await cluster.refused("PUT", path, widget("one", size=5)) == (422, "Invalid")
    conditions = ({"uid": str(uuid.uuid4())}, {"resourceVersion": made["metadata"]["resourceVersion"]})
    for condition in conditions:
        assert await cluster.refused("DELETE", path, {"preconditions": condition}) == (409, "Conflict")


async def test_patches_of_other_kinds(cluster: Cluster) -> None:
    await cluster.create("widgets", widget("one"))
    path = cluster.path("widgets", "one")
    test: list[Object] = [{"op": "test", "path": "/spec/size", "value": 5}]
    assert (await cluster.refused("PATCH", path, test, kind="application/json-patch+json"))[0] == 422
    replaced: list[Object] = [{"op": "replace", "path": "/spec/size", "value": 5}]
    changed = await cluster.request("PATCH", path, replaced, kind="application/json-patch+json")
    assert changed["spec"]["size"] == 5
    strategic = await cluster.refused("PATCH", path, {}, kind="application/strategic-merge-patch+json")
    assert strategic == (415, "UnsupportedMediaType")


async def test_strategic_merge_merges_lists_by_key(cluster: Cluster) -> None:
    await cluster.create("pods", pod("one"))
    body = {"spec": {"containers": [{"name": "main", "image": "x:2"}]}}
    kind = "application/strategic-merge-patch+json"
    changed = await cluster.request("PATCH", cluster.path("pods", "one"), body, kind=kind)
    assert [(each["name"], each["image"]) for each in changed["spec"]["containers"]] == [("main", "x:2")]
    command: Object = {"spec": {"containers": [{"name": "main", "command": ["other"]}]}}
    assert await cluster.refused("PATCH", cluster.path("pods", "one"), command, kind=kind) == (422, "Invalid")


async def test_a_finalizer_holds_and_lets_go(cluster: Cluster) -> None:
    document = widget("one")
    document["metadata"]["finalizers"] = ["example.dev/hold"]
    await cluster.create("widgets", document)
    path = cluster.path("widgets", "one")
    held = await cluster.request("DELETE", path)
    assert (held["metadata"]["deletionTimestamp"], held["metadata"]["generation"])[1] == 2
    more = {"metadata": {"finalizers": ["example.dev/hold", "example.dev/more"]}}
    assert (await cluster.refused("PATCH", path, more, kind="application/merge-patch+json"))[0] == 422
    assert await cluster.refused("POST", cluster.path("widgets"), widget("one")) == (409, "AlreadyExists")
    await cluster.merge(path, {"metadata": {"finalizers": None}})
    assert await cluster.find(path) is None


async def _owned_pod(cluster: Cluster, **reference: Any) -> Object:
    owner = await cluster.create("widgets", widget("one"))
    identity = {"apiVersion": "example.dev/v1", "kind": "Widget", "name": "one", "uid": owner["metadata"]["uid"]}
    return await cluster.create("pods", pod("child", owners=[{**identity, **reference}]))


async def test_dependents_follow_in_the_background(cluster: Cluster) -> None:
    await _owned_pod(cluster)
    answer = await cluster.request("DELETE", cluster.path("widgets", "one"))
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    await cluster.gone(cluster.path("pods", "child"))


async def test_dependents_go_first_in_the_foreground(cluster: Cluster) -> None:
    await _owned_pod(cluster, blockOwnerDeletion=True)
    body = {"propagationPolicy": "Foreground"}
    leaving = await cluster.request("DELETE", cluster.path("widgets", "one"), body)
    assert leaving["metadata"]["finalizers"] == ["foregroundDeletion"]
    await cluster.gone(cluster.path("widgets", "one"))
    assert await cluster.find(cluster.path("pods", "child")) is None


async def test_orphans_stay(cluster: Cluster) -> None:
    await _owned_pod(cluster)
    await cluster.request("DELETE", cluster.path("widgets", "one"), {"propagationPolicy": "Orphan"})
    await cluster.gone(cluster.path("widgets", "one"))
    child = await cluster.request("GET", cluster.path("pods", "child"))
    assert "ownerReferences" not in child["metadata"]


async def test_a_child_of_nobody_is_collected(cluster: Cluster) -> None:
    reference = {"apiVersion": "example.dev/v1", "kind": "Widget", "name": "one", "uid": str(uuid.uuid4())}
    await cluster.create("pods", pod("child", owners=[reference]))
    await cluster.gone(cluster.path("pods", "child"))


async def test_a_pod_gets_the_servers_defaults(cluster: Cluster) -> None:
    made = await cluster.create("pods", pod("one"))
    spec, container = made["spec"], made["spec"]["containers"][0]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"], spec["dnsPolicy"]) == (
        "Always",
        30,
        "ClusterFirst",
    )
    assert (spec["schedulerName"], spec["serviceAccountName"], spec["priority"]) == ("default-scheduler", "default", 0)
    assert (container["imagePullPolicy"], container["terminationMessagePolicy"]) == ("IfNotPresent", "File")
    assert {each["key"] for each in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    }
    assert made["status"]["phase"] == "Pending"
    assert "generation" not in made["metadata"]


async def test_a_pod_is_bound_once_and_leaves_by_its_grace(cluster: Cluster) -> None:
    await cluster.create("pods", pod("one"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "one"},
        "target": {"kind": "Node", "name": "n"},
    }
    path = cluster.path("pods", "one")
    await cluster.request("POST", f"{path}/binding", binding)
    assert await cluster.refused("POST", f"{path}/binding", binding) == (409, "Conflict")
    bound = await cluster.request("GET", path)
    assert bound["spec"]["nodeName"] == "n"
    assert [(each["type"], each["status"]) for each in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    leaving = await cluster.request("DELETE", path, {"gracePeriodSeconds": 20})
    assert leaving["metadata"]["deletionGracePeriodSeconds"] == 20
    assert await cluster.find(path) is not None
    await cluster.request("DELETE", path, {"gracePeriodSeconds": 0})
    assert await cluster.find(path) is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"containers": []}, 422),
        ({"containers": [{"name": "Bad_Name", "image": "x"}]}, 422),
        ({"containers": [{"name": "c"}]}, 422),
        ({"containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": 1}]}]}, 400),
        ({"containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}, 422),
        ({"containers": [{"name": "c", "image": "x", "resources": {"requests": {"example.dev/gpu": 1}}}]}, 422),
        ({"serviceAccountName": "stranger"}, 403),
        ({"priorityClassName": "unknown"}, 403),
        ({"hostname": "Not.A.Label"}, 422),
    ],
    ids=["none", "name", "image", "type", "mount", "gpu", "account", "priority", "hostname"],
)
async def test_a_bad_pod_is_refused(cluster: Cluster, change: Object, status: int) -> None:
    document = pod("one")
    document["spec"] |= change
    assert (await cluster.refused("POST", cluster.path("pods"), document))[0] == status


async def test_a_quota_forbids(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.create("resourcequotas", quota)
    async with asyncio.timeout(30):
        while True:
            found = await cluster.request("GET", cluster.path("resourcequotas", "few"))
            if not cluster.counts_quotas or (found.get("status") or {}).get("used"):
                break
            await asyncio.sleep(0.1)
    assert await cluster.refused("POST", cluster.path("pods"), pod("one")) == (403, "Forbidden")


async def test_a_dry_run_leaves_no_trace(cluster: Cluster) -> None:
    made = await cluster.create("widgets", widget("one"), dryRun="All")
    assert made["spec"]["colour"] == "red"
    assert await cluster.find(cluster.path("widgets", "one")) is None


async def test_scale_moves_the_size(cluster: Cluster) -> None:
    await cluster.create("widgets", widget("one"))
    scale = await cluster.merge(cluster.path("widgets", "one", "scale"), {"spec": {"replicas": 4}})
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 4)
    changed = await cluster.request("GET", cluster.path("widgets", "one"))
    assert (changed["spec"]["size"], changed["metadata"]["generation"]) == (4, 2)


async def test_a_watch_tells_selected_objects_from_a_version_on(cluster: Cluster) -> None:
    made = await cluster.create("pods", pod("one", labels={"app": "a"}))
    path = cluster.path("pods", "one")
    await cluster.merge(path, {"metadata": {"labels": {"app": "b"}}})
    await cluster.merge(path, {"metadata": {"labels": {"app": "a"}}})
    await cluster.request("DELETE", path, {"gracePeriodSeconds": 0})
    version = made["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": version, "labelSelector": "app=a", "timeoutSeconds": "1"}
    async with cluster.client.session.get(cluster.path("pods"), params=query) as response:
        events = [json.loads(line) async for line in response.content]
    assert [event["type"] for event in events] == ["DELETED", "ADDED", "MODIFIED", "DELETED"]


async def test_lists_come_in_pages_and_without_the_kinds_of_built_in_items(cluster: Cluster) -> None:
    for name in "abc":
        await cluster.create("pods", pod(name))
        await cluster.create("widgets", widget(name))
    first = await cluster.request("GET", cluster.path("pods"), limit="2")
    token = first["metadata"]["continue"]
    rest = await cluster.request("GET", cluster.path("pods"), **{"limit": "2", "continue": token})
    assert [item["metadata"]["name"] for item in [*first["items"], *rest["items"]]] == list("abc")
    assert ("kind" in first["items"][0], first["kind"]) == (False, "PodList")
    widgets = await cluster.request("GET", cluster.path("widgets"))
    assert {item["kind"] for item in widgets["items"]} == {"Widget"}


async def test_selectors_that_make_no_sense_are_bad_requests(cluster: Cluster) -> None:
    queries = ({"labelSelector": "a in"}, {"fieldSelector": "spec.hostname=a"})
    for query in queries:
        assert (await cluster.refused("GET", cluster.path("pods"), **query))[0] == 400


async def test_a_service_without_ports_must_be_headless(cluster: Cluster) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"}, "spec": {"selector": {"a": "b"}}}
    assert (await cluster.refused("POST", cluster.path("services"), service))[0] == 422
    service["spec"] = {"selector": {"a": "b"}, "clusterIP": "None", "publishNotReadyAddresses": True}
    made = await cluster.create("services", service)
    assert (made["spec"]["clusterIP"], made["spec"]["type"]) == ("None", "ClusterIP")
    service["metadata"] = {"name": "1-digit-first"}
    assert (await cluster.refused("POST", cluster.path("services"), service))[0] == 422


async def test_server_side_apply_owns_its_fields(cluster: Cluster) -> None:
    path, kind = cluster.path("widgets", "one"), "application/apply-patch+yaml"
    body = widget("one", colour="blue", labels={"a": "x"})
    await cluster.request("PATCH", path, body, kind=kind, fieldManager="first")
    smaller = await cluster.request("PATCH", path, widget("one", labels={"a": "x"}), kind=kind, fieldManager="first")
    assert smaller["spec"] == {"size": 1, "colour": "red", "labels": {"a": "x"}}
    rival = {**widget("one"), "spec": {"size": 2}}
    assert await cluster.refused("PATCH", path, rival, kind=kind, fieldManager="second") == (409, "Conflict")
    forced = await cluster.request("PATCH", path, rival, kind=kind, fieldManager="second", force="true")
    assert (forced["spec"]["size"], forced["spec"]["labels"]) == (2, {"a": "x"})


async def test_a_namespace_takes_everything_along(cluster: Cluster) -> None:
    name = f"{cluster.namespace}-x"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await cluster.request("POST", "/api/v1/namespaces", body)
    held = widget("one")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    await cluster.request("POST", cluster.path("widgets", namespace=name), held)
    await cluster.request("DELETE", f"/api/v1/namespaces/{name}")
    path = cluster.path("widgets", "one", namespace=name)
    async with asyncio.timeout(30):
        while "deletionTimestamp" not in (await cluster.request("GET", path))["metadata"]:
            await asyncio.sleep(0.05)
    late = await cluster.refused("POST", cluster.path("widgets", namespace=name), widget("two"))
    assert late == (403, "Forbidden")
    await cluster.merge(path, {"metadata": {"finalizers": None}})
    await cluster.gone(f"/api/v1/namespaces/{name}")


@pytest.mark.parametrize("spoil", ["name", "storage", "type", "untyped"])
async def test_a_definition_that_is_not_structural_is_refused(cluster: Cluster, spoil: str) -> None:
    crd = json.loads(json.dumps(WIDGET))
    crd["metadata"]["name"] = "gadgets.example.dev"
    crd["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    if spoil == "name":
        crd["metadata"]["name"] = "other.example.dev"
    elif spoil == "storage":
        version["storage"] = False
    elif spoil == "type":
        del schema["type"]
    else:
        schema["properties"]["x"] = {}
    assert await cluster.refused("POST", CRDS, crd) == (422, "Invalid")
