"""The manifests that users copy are accepted by the schema and the reader, and reconciled."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from flightpath_operator.api.read import read_model_deployment, read_training_cluster, read_training_job
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.clusters.reconcile import reconcile as reconcile_cluster
from flightpath_operator.deployments.reconcile import reconcile as reconcile_deployment
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import Observed

from tests.fakes.operator_specs import live, schema_problems

Json = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "examples" / "operator"
FILES = ["ddp-2x2", "elastic-spot", "resume-from-s3", "single-worker", "team-cluster", "vllm-canary"]
READERS: dict[str, Any] = {
    "TrainingJob": read_training_job,
    "TrainingCluster": read_training_cluster,
    "ModelDeployment": read_model_deployment,
}
SETTINGS = DeploymentSettings(flightpath_image="registry.test/flightpath:1")


def _documents(name: str) -> list[Json]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


def _live(name: str) -> list[Json]:
    return [live(found["kind"], found["spec"], found["metadata"]["name"]) for found in _documents(name)]


ALL = [pytest.param(found, id=found["metadata"]["name"]) for name in FILES for found in _documents(name)]


def test_there_are_six_files_and_each_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == FILES


@pytest.mark.parametrize("found", ALL)
def test_examples_pass_schema_and_reader(found: Json) -> None:
    assert found["apiVersion"] == "flightpath.dev/v1alpha1"
    assert schema_problems(found) == []
    READERS[found["kind"]](found)


def test_names_are_unique_so_that_all_can_be_applied_together() -> None:
    names = [(found["kind"], found["metadata"]["name"]) for name in FILES for found in _documents(name)]
    assert len(set(names)) == len(names)


def test_ddp_means_two_workers_with_two_gpus() -> None:
    [found] = _documents("ddp-2x2")
    job = read_training_job(found)
    assert (job.workers, job.gpus_per_worker, job.network.backend) == (2, 2, "nccl")


def test_spot_is_elastic_and_resume_names_its_step() -> None:
    [spot], [resumed] = _documents("elastic-spot"), _documents("resume-from-s3")
    assert read_training_job(spot).elastic
    checkpoint = read_training_job(resumed).checkpoint
    assert checkpoint is not None
    assert (checkpoint.uri.partition("://")[0], checkpoint.resume) == ("s3", 12000)


def test_canary_serves_the_same_model_from_another_bundle_and_carries_no_weight() -> None:
    stable, canary = _live("vllm-canary")
    assert stable["spec"]["model"] == canary["spec"]["model"]
    assert stable["spec"]["bundle"]["digest"] != canary["spec"]["bundle"]["digest"]
    for found in (stable, canary):
        plan = reconcile_deployment(found, Observed(), 1.8e9, SETTINGS)
        assert {"Deployment", "Service", "NetworkPolicy"} <= {child["kind"] for child in plan.creates}
        assert "weight" not in str(found["spec"])


def test_team_cluster_fits_its_quota_and_becomes_a_ray_cluster() -> None:
    [found] = _live("team-cluster")
    plan = reconcile_cluster(found, Observed(capabilities=Capabilities(kuberay=True)), 1.7673e9)
    [ray] = plan.creates
    assert [group["groupName"] for group in ray["spec"]["workerGroupSpecs"]] == ["gpu", "cpu"]
