"""What the operator's service account may do on a real control plane, asked with its own token: enough, and no more."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flightpath_operator.runtime.resources import CHILDREN, PARENTS

from tests.fakes.kubernetes.client import Client, connect
from tests.fakes.operator_cluster import Cluster, cluster_of
from tests.fakes.operator_rbac import NAMESPACE

pytestmark = pytest.mark.cluster
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of("real", tmp_path) as made:
        yield made


@pytest.fixture
async def account(cluster: Cluster) -> AsyncIterator[Client]:
    async with connect(cluster.account) as client:
        yield client


async def may(account: Client, verb: str, group: str, resource: str, namespace: str = "", **more: str) -> bool:
    plural, _, subresource = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = await account.request("POST", REVIEWS, review | {"spec": {"resourceAttributes": asked | more}})
    return bool(answer["status"]["allowed"])


async def test_it_may_watch_and_write_every_kind_that_it_makes(account: Client) -> None:
    for resource in CHILDREN:
        group = resource.api_version.rpartition("/")[0]
        for verb in ("list", "watch", "create", "patch", "delete"):
            assert await may(account, verb, group, resource.plural), (verb, resource)


async def test_it_may_not_order_work_itself(account: Client) -> None:
    for resource in PARENTS:
        group = resource.api_version.rpartition("/")[0]
        assert await may(account, "patch", group, f"{resource.plural}/status")
        assert not await may(account, "create", group, resource.plural)


@pytest.mark.parametrize(
    ("verb", "group", "resource"),
    [
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("create", "", "secrets"),
        ("create", "", "pods/exec"),
        ("create", "", "serviceaccounts/token"),
        ("patch", "", "nodes"),
        ("delete", "", "namespaces"),
        ("create", "rbac.authorization.k8s.io", "clusterroles"),
        ("bind", "rbac.authorization.k8s.io", "clusterroles"),
        ("impersonate", "", "users"),
    ],
)
async def test_it_may_not_reach_further(
    account: Client, cluster: Cluster, verb: str, group: str, resource: str
) -> None:
    assert not await may(account, verb, group, resource)
    assert not await may(account, verb, group, resource, cluster.namespace)


async def test_in_its_own_namespace_it_reads_its_own_secret_only(account: Client) -> None:
    assert await may(account, "get", "", "secrets", NAMESPACE, name="flightpath-operator-progress")
    assert not await may(account, "get", "", "secrets", NAMESPACE, name="another")
    assert not await may(account, "list", "", "secrets", NAMESPACE)
    assert not await may(account, "delete", "coordination.k8s.io", "leases", NAMESPACE, name="flightpath-operator")
