"""Every workflow, task and launch plan compiles to what Flyte's admin takes, without a cluster."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from flyteidl.admin.launch_plan_pb2 import LaunchPlan
from flyteidl.admin.task_pb2 import TaskSpec
from flyteidl.admin.workflow_pb2 import WorkflowSpec
from flyteidl.core.tasks_pb2 import Resources, TaskTemplate
from flyteidl.core.workflow_pb2 import Node
from flytekit.configuration import ImageConfig, SerializationSettings
from flytekit.core.context_manager import ExecutionState, FlyteContextManager
from flytekit.core.type_engine import TypeEngine

from tasks.artifacts import Dataset, ReleasePlan
from tasks.training.task import train_model

_PROJECT = Path(__file__).resolve().parent.parent.parent
_KINDS = {"_1.pb": TaskSpec, "_2.pb": WorkflowSpec, "_3.pb": LaunchPlan}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Members of the package that `pyflyte package` makes, by name."""
    path = tmp_path_factory.mktemp("package") / "flightpath.tgz"
    command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "--pkgs", "workflows", "package"]
    command += ["--image", "registry.example/flightpath:test", "--copy", "none", "--output", str(path), "--force"]
    subprocess.run(command, cwd=_PROJECT, check=True, capture_output=True)
    with tarfile.open(path) as archive:
        return {
            member.name: file.read()
            for member in archive.getmembers()
            if (file := archive.extractfile(member)) is not None
        }


def test_every_member_is_a_message_of_its_kind(package: dict[str, bytes]) -> None:
    for name, content in package.items():
        message = _KINDS[name[-5:]].FromString(content)
        assert message.ByteSize() == len(content)


def test_the_release_has_every_stage_and_a_sub_workflow_for_each(package: dict[str, bytes]) -> None:
    (content,) = (value for name, value in package.items() if name.endswith("workflows.release.release_2.pb"))
    spec = WorkflowSpec.FromString(content)
    called = {
        node.workflow_node.sub_workflow_ref.name or node.task_node.reference_id.name for node in spec.template.nodes
    }
    assert called >= {
        "tasks.release.task.plan_release",
        "workflows.training.data",
        "workflows.training.training",
        "workflows.training.evaluation",
        "workflows.compression.compression",
        "workflows.compression.bundle",
        "tasks.promotion.task.promote_release",
        "tasks.release.task.report_release",
    }


def _training(launcher: str, overrides: dict[str, Any]) -> tuple[TaskTemplate, Node]:
    """Task and node that the dynamic workflow asks a cluster for, as it does in a pod."""
    plan = ReleasePlan(
        release_id="rel", recipe="resnet-digits", seed=1, store_uri="file:///s", regions=["us-east"],
        code_version="c", data_hash="d", overrides=json.dumps(overrides),
    )  # fmt: skip
    inputs = {"plan": plan, "dataset": Dataset(uri="file:///s/d", sha256="0", samples={}), "launcher": launcher}
    image = ImageConfig.from_images("registry.example/flightpath:test")
    settings = SerializationSettings(image_config=image, project="p", domain="d", version="v")
    context = FlyteContextManager.current_context().with_serialization_settings(settings)
    with FlyteContextManager.with_context(context) as serializing:
        state = serializing.execution_state
        assert state is not None
        pod = serializing.with_execution_state(state.with_params(mode=ExecutionState.Mode.TASK_EXECUTION))
        with FlyteContextManager.with_context(pod) as here:
            types = train_model.python_interface.inputs
            literals = TypeEngine.dict_to_literal_map(here, inputs, type_hints=types)
            train_model._wf = None  # kept for the next call, of which a pod sees none
            spec = train_model.dispatch_execute(here, literals).to_flyte_idl()
    (template,), (node,) = spec.tasks, [node for node in spec.nodes if node.HasField("task_node")]
    return template, node


def _amounts(entries: Any) -> dict[str, str]:
    return {Resources.ResourceName.Name(entry.name): entry.value for entry in entries}


def test_a_ray_cluster_has_what_the_recipe_asks_for() -> None:
    asked = {"workers": 4, "resources.cpus": 3, "resources.memory": "8Gi", "resources.gpus": 1}
    template, node = _training("ray", {**asked, "resources.accelerator": "nvidia-l4"})
    assert template.type == "ray"
    (group,) = template.custom["rayCluster"]["workerGroupSpec"]
    assert int(group["replicas"]) == 4
    (container,) = group["k8sPod"]["podSpec"]["containers"]
    assert dict(container["resources"]["limits"]) == {"cpu": "3", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert node.task_node.overrides.extended_resources.gpu_accelerator.device == "nvidia-l4"


def test_elastic_training_is_one_pod_where_the_workers_fit_in() -> None:
    template, node = _training("elastic", {"workers": 4, "resources.cpus": 2, "resources.memory": "8Gi"})
    assert template.type == "python-task"
    amounts = _amounts(node.task_node.overrides.resources.limits)
    assert amounts == {"CPU": "8", "MEMORY": "32Gi"}


def test_elastic_training_is_a_pytorch_job_where_they_do_not() -> None:
    template, node = _training("elastic", {"workers": 16, "global_batch": 64, "resources.gpus": 1})
    assert template.type == "pytorch"
    assert template.custom["elasticConfig"]["nprocPerNode"] == 8
    assert template.custom["elasticConfig"]["minReplicas"] == 2
    assert _amounts(node.task_node.overrides.resources.limits)["GPU"] == "8"


def test_promotion_is_a_connector_task_without_a_container(package: dict[str, bytes]) -> None:
    (content,) = (value for name, value in package.items() if name.endswith("promote_release_1.pb"))
    template = TaskSpec.FromString(content).template
    assert template.type == "flightpath_promotion"
    assert not template.HasField("container")


def test_provisioning_goes_through_policy_and_approval_before_it_applies(package: dict[str, bytes]) -> None:
    (content,) = (value for name, value in package.items() if name.endswith("workflows.clusters.carry_out_2.pb"))
    (plan,) = (value for name, value in package.items() if name.endswith("workflows.clusters.plan_2.pb"))
    nodes = [node for spec in (plan, content) for node in WorkflowSpec.FromString(spec).template.nodes]
    steps = [node.task_node.reference_id.name.rpartition(".")[2] for node in nodes if node.HasField("task_node")]
    expected = ["plan_region", "require_policy", "require_approval", "apply_region", "install_region", "check_region"]
    assert steps == expected


def test_the_human_gate_stands_at_the_top_level_of_its_own_workflow(package: dict[str, bytes]) -> None:
    name = "workflows.clusters.provision_with_gate_2.pb"
    (content,) = (value for member, value in package.items() if member.endswith(name))
    gates = [node for node in WorkflowSpec.FromString(content).template.nodes if node.HasField("gate_node")]
    assert [gate.gate_node.signal.signal_id for gate in gates] == ["approval"]
    assert [gate.upstream_node_ids for gate in gates] != [[]], "nobody is asked before there is a plan"


def test_drift_of_every_region_of_aws_is_looked_for_daily(package: dict[str, bytes]) -> None:
    plans = [LaunchPlan.FromString(value) for name, value in package.items() if name.endswith("-daily_3.pb")]
    drift = {plan.id.name: plan.spec for plan in plans if plan.id.name.startswith("drift-")}
    assert sorted(drift) == ["drift-asia-pacific-daily", "drift-eu-west-daily", "drift-us-east-daily"]
    for spec in drift.values():
        assert spec.entity_metadata.schedule.cron_schedule.schedule.endswith(" 5 * * *")
        assert spec.workflow_id.name == "workflows.clusters.drift"


def test_costs_are_told_weekly_region_by_region_side_by_side(package: dict[str, bytes]) -> None:
    (content,) = (value for name, value in package.items() if name.endswith("workflows.clusters.cost_2.pb"))
    first, last = WorkflowSpec.FromString(content).template.nodes
    assert first.HasField("array_node")
    assert last.task_node.reference_id.name == "tasks.clusters.task.report_costs"
    (weekly,) = (value for name, value in package.items() if name.endswith("cost-weekly_3.pb"))
    assert LaunchPlan.FromString(weekly).spec.entity_metadata.schedule.cron_schedule.schedule == "0 6 * * 1"


def test_no_task_carries_a_secret_or_a_path_of_this_machine(package: dict[str, bytes]) -> None:
    for name, content in package.items():
        assert str(_PROJECT).encode() not in content, name
        assert b"Bearer" not in content, name
