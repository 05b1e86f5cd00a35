"""What the reader accepts and refuses, and that the CRDs' schemas say the same."""

from typing import Any

import pytest
from flightpath_operator.api.read import InvalidSpec, read_model_deployment, read_training_cluster, read_training_job
from flightpath_operator.api.training_job import ElasticWorkers

from tests.fakes.operator_specs import (
    ACCEPTED,
    CLUSTER,
    JOB,
    MODEL,
    REFUSED,
    SMALLEST,
    document,
    schema_problems,
)

READERS: dict[str, Any] = {
    "TrainingJob": read_training_job,
    "TrainingCluster": read_training_cluster,
    "ModelDeployment": read_model_deployment,
}


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED)
def test_good_specs_pass_schema_and_reader(kind: str, spec: dict[str, Any]) -> None:
    assert schema_problems(document(kind, spec)) == []
    READERS[kind](document(kind, spec))


@pytest.mark.parametrize(("who", "kind", "spec", "named"), REFUSED)
def test_bad_specs_are_refused_with_the_field_named(who: str, kind: str, spec: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpec, match=r"^spec") as refused:
        READERS[kind](document(kind, spec))
    assert refused.value.reason == "InvalidSpec"
    assert named in refused.value.message
    assert bool(schema_problems(document(kind, spec))) == (who == "schema")


@pytest.mark.parametrize("kind", SMALLEST)
def test_unknown_fields_are_refused(kind: str) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.colour: unknown field"):
        READERS[kind](document(kind, SMALLEST[kind] | {"colour": "red"}))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a" * 45, "NameTooLong"), ("1digits", "InvalidName"), ("a.b", "InvalidName"), ("a-", "InvalidName")],
)
def test_names_that_no_service_could_bear_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidSpec, match=r"metadata\.name") as refused:
        read_training_job(document("TrainingJob", JOB, name))
    assert refused.value.reason == reason


def test_longest_name_is_accepted() -> None:
    read_training_job(document("TrainingJob", JOB, "a" * 44))


def test_a_missing_spec_names_what_is_required() -> None:
    empty = {"metadata": {"name": "digits"}, "spec": None}
    with pytest.raises(InvalidSpec, match=r"spec\.image: Field required; spec\.workers: Field required"):
        read_training_job(empty)


def test_many_problems_are_told_in_one_short_message() -> None:
    spec = JOB | {f"field{number}": number for number in range(40)}
    with pytest.raises(InvalidSpec) as refused:
        read_training_job(document("TrainingJob", spec))
    assert refused.value.message.endswith("and 35 more")


def test_huge_values_are_not_repeated_in_full() -> None:
    with pytest.raises(InvalidSpec) as refused:
        read_training_job(document("TrainingJob", JOB | {"framework": "x" * 10_000}))
    assert len(refused.value.message) < 300


def test_workers_are_a_number_or_a_range() -> None:
    fixed = read_training_job(document("TrainingJob", JOB | {"workers": 3}))
    elastic = read_training_job(document("TrainingJob", JOB | {"workers": {"min": 1, "max": 4}}))
    assert (fixed.min_workers, fixed.max_workers, fixed.elastic) == (3, 3, False)
    assert (elastic.min_workers, elastic.max_workers, elastic.elastic) == (1, 4, True)
    assert elastic.workers == ElasticWorkers(min=1, max=4)


def test_defaults_of_a_job_are_those_of_the_design() -> None:
    job = read_training_job(document("TrainingJob", JOB))
    assert (job.restart.max_restarts, job.restart.backoff_seconds, job.restart.stall_factor) == (3, 5, 10)
    assert (job.startup_deadline_seconds, job.termination_grace_period_seconds) == (600, 30)
    assert (job.network.port, job.network.backend, job.gpus_per_worker) == (29500, None, 0)
    assert job.managed_by == "flightpath.dev/operator"


def test_defaults_of_a_deployment_are_those_of_the_design() -> None:
    model = read_model_deployment(document("ModelDeployment", MODEL))
    assert (model.drain_seconds, model.startup_seconds, model.port, model.replicas) == (30, 600, 8000, 1)


def test_gpus_of_a_cluster_are_counted_at_its_largest() -> None:
    groups = [{"name": "a", "max": 4, "gpusPerWorker": 8}, {"name": "b", "max": 2}]
    assert read_training_cluster(document("TrainingCluster", CLUSTER | {"workerGroups": groups})).max_group_gpus == 32
