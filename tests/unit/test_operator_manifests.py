"""The manifests that install the operator: least privilege, complete for what it does, and kubectl can build them."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml
from flightpath_operator.runtime.progress_key import SECRET
from flightpath_operator.runtime.resources import CHILDREN, NODE, PARENTS
from flightpath_operator.runtime.settings import Settings

from tests.fakes.kubernetes.faults import Call
from tests.fakes.operator_rbac import ACCOUNT, MANIFESTS, NAMESPACE, authorize, documents, rules

WATCH = ("list", "watch")
WRITE = ("create", "patch", "delete")


def granted(verb: str, api_version: str, resource: str) -> bool:
    """Whether the ClusterRole has it, the API group included."""
    group = api_version.rpartition("/")[0]
    found = (rule for rule in rules("ClusterRole") if group in rule["apiGroups"] and resource in rule["resources"])
    return any(verb in rule["verbs"] for rule in found)


def test_every_kind_that_the_operator_makes_is_allowed() -> None:
    for resource in CHILDREN:
        for verb in (*WATCH, *WRITE):
            assert granted(verb, resource.api_version, resource.plural), (verb, resource)
    assert all(granted(verb, NODE.api_version, NODE.plural) for verb in WATCH)


def test_its_own_kinds_are_watched_and_described_and_never_made() -> None:
    for resource in PARENTS:
        for verb in (*WATCH, "patch", "delete"):
            assert granted(verb, resource.api_version, resource.plural), (verb, resource)
        assert granted("patch", resource.api_version, f"{resource.plural}/status")
        assert not granted("create", resource.api_version, resource.plural)


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_no_role_holds_a_wildcard(kind: str) -> None:
    for role in documents(kind):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]
            assert "nonResourceURLs" not in rule


def test_the_cluster_role_reaches_no_secret_and_no_rights() -> None:
    kinds = {resource.partition("/")[0] for rule in rules("ClusterRole") for resource in rule["resources"]}
    assert not kinds & {"secrets", "clusterroles", "clusterrolebindings", "roles", "rolebindings", "namespaces"}
    assert not any(
        verb in rule["verbs"] for rule in rules("ClusterRole") for verb in ("bind", "escalate", "impersonate")
    )


def test_bindings_name_the_operators_own_roles() -> None:
    bindings = [*documents("ClusterRoleBinding"), *documents("RoleBinding")]
    assert {each["roleRef"]["name"] for each in bindings} == {ACCOUNT}
    assert {subject["name"] for each in bindings for subject in each["subjects"]} == {ACCOUNT}


def test_in_its_namespace_it_has_its_lease_and_its_one_secret() -> None:
    lease = Settings().lease_name
    allowed = [
        Call(verb="get", plural="leases", namespace=NAMESPACE, name=lease),
        Call(verb="update", plural="leases", namespace=NAMESPACE, name=lease),
        Call(verb="create", plural="leases", namespace=NAMESPACE),
        Call(verb="get", plural="secrets", namespace=NAMESPACE, name=SECRET),
        Call(verb="create", plural="secrets", namespace=NAMESPACE),
    ]
    refused = [
        Call(verb="get", plural="secrets", namespace=NAMESPACE, name="another"),
        Call(verb="get", plural="secrets", namespace="default", name=SECRET),
        Call(verb="list", plural="secrets", namespace=NAMESPACE),
        Call(verb="update", plural="leases", namespace="kube-system", name=lease),
    ]
    assert all(authorize(ACCOUNT, call) for call in allowed)
    assert not any(authorize(ACCOUNT, call) for call in refused)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_installation() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / "default")], capture_output=True, text=True, timeout=60, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "deprecated" not in built.stderr
    found: list[dict[str, Any]] = list(yaml.safe_load_all(built.stdout))
    kinds = [each["kind"] for each in found]
    assert kinds.count("CustomResourceDefinition") == len(PARENTS)
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert not container["image"].endswith((":latest", "/operator"))
    subjects = [subject for each in found if "Binding" in each["kind"] for subject in each["subjects"]]
    assert {subject["namespace"] for subject in subjects} == {NAMESPACE}
    placed = [each for each in found if each["kind"] in ("Deployment", "Service", "Role", "ServiceAccount")]
    assert {each["metadata"]["namespace"] for each in placed} == {NAMESPACE}
