"""What a worker's pod says: where the group meets, what it mounts, what it may do."""

from typing import Any

import pytest
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.plan import Object

from tests.fakes.training_world import World


def made(**spec: Any) -> World:
    world = World(**spec)
    world.settle()
    return world


def variables(world: World, rank: int = 0) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(world, rank)["env"]}


def container(world: World, rank: int = 0) -> Object:
    found: Object = world.pod(rank)["spec"]["containers"][0]
    return found


def test_fixed_group_meets_statically() -> None:
    world = made(workers=3, gpusPerWorker=4, network={"port": 30000})
    told = variables(world, 2)
    address = "digits-a1-w0.digits.team.svc"
    assert (
        told.items()
        >= {
            "MASTER_ADDR": address,
            "MASTER_PORT": "30000",
            "NNODES": "3",
            "NODE_RANK": "2",
            "NPROC_PER_NODE": "4",
            "WORLD_SIZE": "12",
            "PET_NNODES": "3",
            "PET_NODE_RANK": "2",
            "PET_NPROC_PER_NODE": "4",
            "PET_MASTER_ADDR": address,
            "PET_MASTER_PORT": "30000",
            "PET_MAX_RESTARTS": "0",
        }.items()
    )
    assert not [name for name in told if "RDZV" in name]


def test_elastic_group_meets_through_its_first_worker() -> None:
    world = made(workers={"min": 2, "max": 4}, restart={"maxRestarts": 7})
    told = variables(world, 3)
    assert (
        told.items()
        >= {
            "NNODES": "2:4",
            "PET_NNODES": "2:4",
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_ENDPOINT": "digits-a1-w0.digits.team.svc:29500",
            "PET_RDZV_ID": "uid-1-a1",
            "PET_RDZV_CONF": "is_host=0",
            "PET_MAX_RESTARTS": "7",
        }.items()
    )
    assert not told.keys() & {"WORLD_SIZE", "PET_NODE_RANK", "PET_MASTER_ADDR"}
    assert variables(world, 0)["PET_RDZV_CONF"] == "is_host=1"


def test_custom_framework_gets_no_variables_of_torchrun() -> None:
    assert not [name for name in variables(made(framework="custom")) if name.startswith("PET_")]


def test_next_attempt_meets_at_another_address_with_another_token() -> None:
    world = World().started()
    before = variables(world)
    world.exit(0, 1)
    world.next_attempt()
    after = variables(world)
    assert after["MASTER_ADDR"] == "digits-a2-w0.digits.team.svc"
    assert after["FLIGHTPATH_ATTEMPT"] == "2"
    assert (before["FLIGHTPATH_PROGRESS_TOKEN"], after["FLIGHTPATH_PROGRESS_TOKEN"]) == (
        "token-uid-1-1",
        "token-uid-1-2",
    )


def test_host_name_is_the_one_that_the_service_answers_for() -> None:
    world = made()
    assert world.pod(1)["spec"]["hostname"] == "digits-a1-w1"
    assert world.pod(1)["spec"]["subdomain"] == "digits"
    service = world.children["Service", "digits"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    assert service["selector"].items() <= world.pod(1)["metadata"]["labels"].items()


def test_workers_differ_only_in_what_belongs_to_their_rank() -> None:
    world = made(workers=2, gpusPerWorker=1)
    first, second = variables(world, 0), variables(world, 1)
    assert {name for name in first if first[name] != second[name]} == {"NODE_RANK", "PET_NODE_RANK"}


def test_own_variables_win_over_those_of_the_spec() -> None:
    given = [{"name": "MASTER_ADDR", "value": "evil"}, {"name": "FLIGHTPATH_RESUME", "value": "never"}]
    secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    world = made(env=[*given, secret])
    names = [entry["name"] for entry in container(world)["env"]]
    assert names.count("MASTER_ADDR") == 1
    assert "FLIGHTPATH_RESUME" not in names
    assert container(world)["env"][-1] == secret
    assert container(world)["envFrom"] == [{"configMapRef": {"name": "digits-env"}}]
    assert world.children["ConfigMap", "digits-env"]["data"]["FLIGHTPATH_RESUME"] == "auto"


def test_checkpoint_settings_reach_the_workers() -> None:
    world = made(
        checkpoint={"uri": "s3://runs/1", "resume": 120, "intervalSteps": 50, "intervalSeconds": 600, "keep": 3}
    )
    assert world.children["ConfigMap", "digits-env"]["data"] == {
        "FLIGHTPATH_CHECKPOINT_URI": "s3://runs/1",
        "FLIGHTPATH_RESUME": "120",
        "FLIGHTPATH_CHECKPOINT_INTERVAL_STEPS": "50",
        "FLIGHTPATH_CHECKPOINT_INTERVAL_SECONDS": "600",
        "FLIGHTPATH_CHECKPOINT_KEEP": "3",
    }
    assert world.status["environment"] == world.children["ConfigMap", "digits-env"]["data"]


@pytest.mark.parametrize(
    ("uri", "seen", "volume"),
    [
        ("pvc://claim/runs/1", "file:///checkpoints/runs/1", {"persistentVolumeClaim": {"claimName": "claim"}}),
        ("pvc://claim", "file:///checkpoints", {"persistentVolumeClaim": {"claimName": "claim"}}),
        (
            "nfs://10.0.0.1/exports/runs",
            "file:///checkpoints",
            {"nfs": {"server": "10.0.0.1", "path": "/exports/runs"}},
        ),
        ("file:///shared/runs", "file:///shared/runs", None),
    ],
)
def test_claims_and_exports_are_mounted(uri: str, seen: str, volume: Object | None) -> None:
    world = made(checkpoint={"uri": uri})
    spec = world.pod(0)["spec"]
    assert world.status["environment"]["FLIGHTPATH_CHECKPOINT_URI"] == seen
    mounted = [entry for entry in spec["volumes"] if entry["name"] == "flightpath-checkpoints"]
    assert mounted == ([{"name": "flightpath-checkpoints"} | volume] if volume else [])
    paths = [mount["mountPath"] for mount in container(world)["volumeMounts"]]
    assert ("/checkpoints" in paths) == (volume is not None)
    assert ("fsGroup" in spec["securityContext"]) == (volume is not None)


def test_pods_keep_to_the_restricted_profile() -> None:
    world = made()
    spec = world.pod(0)["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    security = container(world)["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Never"


def test_rdma_may_lock_memory_and_nothing_more() -> None:
    world = made(network={"rdma": True})
    assert container(world)["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}


def test_own_pod_security_context_takes_the_place_of_the_restricted_one() -> None:
    world = made(podSecurityContext={"runAsUser": 0})
    assert world.pod(0)["spec"]["securityContext"] == {"runAsUser": 0}


def test_gpus_are_limits_of_their_resource() -> None:
    resources = {"requests": {"cpu": "4", "amd.com/gpu": "1"}, "limits": {"memory": "8Gi"}}
    world = made(gpusPerWorker=2, gpuResource="amd.com/gpu", resources=resources)
    assert container(world)["resources"] == {
        "requests": {"cpu": "4"},
        "limits": {"memory": "8Gi", "amd.com/gpu": "2"},
    }


def test_shared_memory_is_large_unless_the_job_mounts_its_own() -> None:
    assert {"name": "flightpath-shm", "emptyDir": {"medium": "Memory"}} in made().pod(0)["spec"]["volumes"]
    own = made(volumes=[{"name": "shm", "emptyDir": {}}], volumeMounts=[{"name": "shm", "mountPath": "/dev/shm"}])
    assert own.pod(0)["spec"]["volumes"] == [{"name": "shm", "emptyDir": {}}]


def test_fields_of_the_spec_reach_the_pod() -> None:
    world = made(
        command=["python", "-m"],
        args=["train"],
        nodeSelector={"pool": "gpu"},
        tolerations=[{"key": "spot", "operator": "Exists", "tolerationSeconds": 5}],
        serviceAccountName="trainer",
        imagePullSecrets=[{"name": "registry"}],
        priorityClassName="high",
        terminationGracePeriodSeconds=90,
        tenant="team-a",
    )
    spec = world.pod(0)["spec"]
    assert container(world)["command"] == ["python", "-m"]
    assert container(world)["args"] == ["train"]
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [{"key": "spot", "operator": "Exists", "tolerationSeconds": 5}]
    assert spec["serviceAccountName"] == "trainer"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "high"
    assert spec["terminationGracePeriodSeconds"] == 90
    assert world.pod(0)["metadata"]["labels"]["flightpath.dev/tenant"] == "team-a"


def test_autoscalers_leave_workers_where_they_are() -> None:
    annotations = made().pod(0)["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def test_names_fit_for_the_longest_job() -> None:
    world = World(workers=4096)
    assert world.parent is not None
    world.parent["metadata"]["name"] = "d" * 44
    world.step()
    names = [pod["metadata"]["name"] for pod in world.plan().creates]
    assert len(names) == 4096
    assert max(map(len, names)) <= 63


def test_pod_group_names_the_scheduler_that_the_settings_name() -> None:
    world = World()
    world.capabilities = Capabilities(pod_group=True)
    world.settle()
    assert "schedulerName" not in world.pod(0)["spec"]
