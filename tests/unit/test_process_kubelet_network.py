"""Names and ports of the cluster become addresses of this machine, and nothing else is touched."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes.container_environment import expand
from tests.fakes.kubernetes.container_files import path_rewriter
from tests.fakes.kubernetes.local_network import LocalNetwork
from tests.fakes.kubernetes.widgets import pod

Object = dict[str, Any]


def job_pod(rank: int) -> Object:
    made = pod(f"job-w{rank}", labels={"job": "job"}, hostname=f"job-w{rank}", subdomain="job")
    made["metadata"]["namespace"] = "team"
    made["spec"]["containers"][0]["ports"] = [{"name": "master", "containerPort": 29500}]
    return made


@pytest.fixture
def network() -> LocalNetwork:
    headless = {"metadata": {"namespace": "team", "name": "job"}, "spec": {"selector": {"job": "job"}}}
    web = {
        "metadata": {"namespace": "team", "name": "web"},
        "spec": {"selector": {"job": "job"}, "ports": [{"port": 80, "targetPort": "master"}]},
    }
    pods = {("team", f"job-w{rank}"): job_pod(rank) for rank in (0, 1)}
    return LocalNetwork(lambda: {("team", "job"): headless, ("team", "web"): web}, lambda: pods, {})


@pytest.mark.parametrize(
    "name",
    ["job-w0.job", "job-w0.job.team", "job-w0.job.team.svc", "job-w0.job.team.svc.cluster.local"],
)
def test_every_spelling_of_a_pods_name_is_the_same_pod(network: LocalNetwork, name: str) -> None:
    made = network.rewrite_environment(job_pod(1), {"MASTER_ADDR": name, "MASTER_PORT": "29500"})
    assert made == {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(network.port_of(job_pod(0), 29500))}


def test_a_ports_local_number_is_the_pods_own(network: LocalNetwork) -> None:
    first, second = network.port_of(job_pod(0), "master"), network.port_of(job_pod(1), 29500)
    assert first != second
    assert network.port_of(job_pod(0), 29500) == first


def test_a_services_port_leads_to_a_pods_target_port(network: LocalNetwork) -> None:
    first = network.port_of(job_pod(0), "master")
    made = network.rewrite_environment(job_pod(1), {"URL": "http://web.team.svc:80/v1?a=b", "HERE": "tcp://web:80"})
    assert made == {"URL": f"http://127.0.0.1:{first}/v1?a=b", "HERE": f"tcp://127.0.0.1:{first}"}


@pytest.mark.parametrize(
    "value",
    ["web", "job", "train.py", "model.job-x", "29500", "0.5", "example.com:443", "/data/web", "a-web.x", "10.0.0.1:80"],
)
def test_words_that_only_look_like_names_stay(network: LocalNetwork, value: str) -> None:
    assert network.rewrite_environment(job_pod(0), {"VALUE": value}) == {"VALUE": value}


def test_declared_ports_change_in_words_and_port_variables_only(network: LocalNetwork) -> None:
    own = network.port_of(job_pod(1), 29500)
    words = ["--port", "29500", "--port=29500", "--steps=29501", "x29500"]
    expected = ["--port", str(own), f"--port={own}", "--steps=29501", "x29500"]
    assert network.rewrite_words(job_pod(1), words, {}) == expected
    made = network.rewrite_environment(job_pod(1), {"HTTP_PORT": "29500", "SEED": "29500"})
    assert made == {"HTTP_PORT": str(own), "SEED": "29500"}


def test_a_port_that_the_environment_pairs_with_a_host_is_the_hosts_in_words_too(network: LocalNetwork) -> None:
    environment = {"MASTER_ADDR": "job-w0.job.team.svc", "MASTER_PORT": "29500"}
    words = network.rewrite_words(job_pod(1), ["--master-port=29500"], environment)
    assert words == [f"--master-port={network.port_of(job_pod(0), 29500)}"]


def test_references_are_replaced_as_the_kubelet_does() -> None:
    environment = {"A": "1", "B-C": "2"}
    assert expand("$(A)-$(B-C)-$(NONE)-$$(A)-$A", environment) == "1-2-$(NONE)-$(A)-$A"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/model", "/tmp/d/model"),
        ("--path=/data", "--path=/tmp/d"),
        ("file:///data/a,/data/b", "file:///tmp/d/a,/tmp/d/b"),
        ("/data/deep/x", "/tmp/e/x"),
        ("/database", "/database"),
        ("/other/data", "/other/data"),
        ("s3://bucket/data/x", "s3://bucket/data/x"),
    ],
)
def test_mount_paths_are_rewritten_where_a_path_begins(text: str, expected: str) -> None:
    places = {"/data": Path("/tmp/d"), "/data/deep": Path("/tmp/e")}
    assert path_rewriter(places)(text) == expected
