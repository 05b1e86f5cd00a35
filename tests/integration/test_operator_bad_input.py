"""What people get who apply something wrong with kubectl: a refusal that names the field, or a condition that does."""

import asyncio
import shutil
from typing import Any

import pytest
import yaml

from tests.fakes.operator import OperatorProcess, training_job
from tests.fakes.operator_cluster import Cluster, until

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


async def apply(cluster: Cluster, document: dict[str, Any], *options: str) -> tuple[bool, str]:
    """Whether it was taken, and what kubectl said."""
    document["metadata"]["namespace"] = cluster.namespace
    text = yaml.safe_dump(document)
    done = await asyncio.to_thread(cluster.kubectl, "apply", *options, "-f", "-", stdin=text)
    return done.returncode == 0, done.stderr


async def complaint(cluster: Cluster, name: str, operator: OperatorProcess) -> dict[str, Any]:
    """The job's condition Accepted, once it is false."""

    async def refused() -> dict[str, Any]:
        found = await cluster.condition("trainingjobs", name, "Accepted")
        return found if found.get("status") == "False" else {}

    found: dict[str, Any] = await until(refused, operator)
    return found


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"workers": -1}, "spec.workers"),
        ({"workers": "many"}, "spec.workers"),
        ({"image": ""}, "spec.image"),
        ({"gpusPerWorker": 17}, "spec.gpusPerWorker"),
        ({"network": {"port": 80}}, "spec.network.port"),
        ({"checkpoint": {}}, "spec.checkpoint.uri"),
    ],
    ids=["negative", "no number", "empty", "too many", "low port", "missing"],
)
async def test_the_schema_refuses_and_names_the_field(cluster: Cluster, spec: dict[str, Any], field: str) -> None:
    taken, said = await apply(cluster, training_job(**spec), "--validate=false")
    assert not taken
    assert field in said
    assert await cluster.find("trainingjobs", "digits") is None


async def test_an_unknown_field_is_refused_by_kubectl_or_pruned_by_the_server(cluster: Cluster) -> None:
    taken, said = await apply(cluster, training_job(surprise=1))
    if not taken:
        assert "surprise" in said
        taken, said = await apply(cluster, training_job(surprise=1), "--validate=false")
    assert taken, said
    found = await cluster.find("trainingjobs", "digits")
    assert found is not None
    assert "surprise" not in found["spec"]


@pytest.mark.parametrize(
    ("name", "spec", "reason", "said"),
    [
        ("a" * 45, {}, "NameTooLong", "at most 44 characters, got 45"),
        ("digits.one", {}, "InvalidName", "digits.one"),
        ("digits", {"workers": {"min": 4, "max": 2}}, "InvalidSpec", "spec.workers"),
    ],
    ids=["long name", "dotted name", "min over max"],
)
async def test_what_only_rules_forbid_is_refused_or_told_in_a_condition(
    cluster: Cluster, operator: OperatorProcess, name: str, spec: dict[str, Any], reason: str, said: str
) -> None:
    taken, refused = await apply(cluster, training_job(name, **spec), "--validate=false")
    if not taken:  # a server that knows rules
        assert "workers" in refused or "metadata.name" in refused
        return
    found = await complaint(cluster, name, operator)
    assert (found["reason"], said in found["message"]) == (reason, True), found
    assert not await cluster.pods(name)
    await cluster.delete("trainingjobs", name)

    async def gone() -> bool:
        return await cluster.find("trainingjobs", name) is None

    await until(gone, operator)
