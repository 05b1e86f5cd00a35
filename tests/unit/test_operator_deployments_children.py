"""The objects that run a ModelDeployment, by engine and by what the cluster can do."""

from typing import Any

import pytest
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.reconcile import reconcile
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import Observed, Plan

from tests.fakes.operator_specs import DIGEST, MODEL, live

Json = dict[str, Any]
SETTINGS = DeploymentSettings(flightpath_image="registry.test/flightpath:1")
KEDA = DeploymentSettings(flightpath_image="registry.test/flightpath:1", prometheus_url="http://prometheus:9090")
NEW, OLD = Capabilities(minor=32), Capabilities(minor=20)
ENGINES = ("vllm", "onnxruntime", "tensorrt", "triton")


def _plan(spec: Json, capabilities: Capabilities = NEW, settings: DeploymentSettings = SETTINGS) -> Plan:
    return reconcile(live("ModelDeployment", MODEL | spec), Observed(capabilities=capabilities), 1.8e9, settings)


def _create(kind: str, spec: Json, capabilities: Capabilities = NEW, settings: DeploymentSettings = SETTINGS) -> Json:
    [found] = [child for child in _plan(spec, capabilities, settings).creates if child["kind"] == kind]
    return found


def _pod(spec: Json, capabilities: Capabilities = NEW) -> Json:
    pod: Json = _create("Deployment", spec, capabilities)["spec"]["template"]["spec"]
    return pod


def _server(spec: Json, capabilities: Capabilities = NEW) -> Json:
    [server] = _pod(spec, capabilities)["containers"]
    assert isinstance(server, dict)
    return server


def _engine(engine: str, **runtime: Any) -> Json:
    return {"runtime": MODEL["runtime"] | {"engine": engine} | runtime}


def _degraded(plan: Plan) -> str:
    assert plan.status is not None
    [condition] = [each for each in plan.status["conditions"] if each["type"] == "Degraded"]
    return str(condition["message"])


def test_smallest_spec_makes_deployment_service_and_budget() -> None:
    kinds = [child["kind"] for child in _plan({}).creates]
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget"]


def test_service_and_deployment_select_the_same_pods() -> None:
    deployment, service = _create("Deployment", {}), _create("Service", {})
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert service["spec"]["ports"][0]["port"] == 8000


def test_bundle_is_fetched_by_digest_and_served_read_only() -> None:
    pod = _pod({})
    [fetch] = pod["initContainers"]
    assert fetch["image"] == "registry.test/flightpath:1"
    assert fetch["command"][:3] == ["python", "-m", "serving.fetch_bundle"]
    assert fetch["command"][fetch["command"].index("--digest") + 1] == DIGEST
    [mount] = [mount for mount in _server({})["volumeMounts"] if mount["mountPath"] == "/bundle"]
    assert mount["readOnly"] is True


def test_only_the_fetching_container_sees_the_stores_credentials() -> None:
    spec = {"bundle": MODEL["bundle"] | {"storeSecret": "store"}}
    [fetch] = _pod(spec)["initContainers"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert "envFrom" not in _server(spec)


def test_vllm_serves_the_entry_under_the_models_name_and_drains() -> None:
    spec = _engine("vllm", arguments=["--max-model-len", "4096"]) | {"drainSeconds": 45, "gpus": 2}
    command = _server(spec)["command"]
    assert command[:5] == ["vllm", "serve", "/bundle/.entry", "--max-model-len", "4096"]
    assert command[5:7] == ["--tensor-parallel-size", "2"]
    assert command[7:9] == ["--served-model-name", "digits"]
    assert command[-2:] == ["--shutdown-timeout", "45"]


def test_parallelism_that_the_spec_names_is_not_overridden() -> None:
    spec = _engine("vllm", arguments=["--pipeline-parallel-size=2"]) | {"gpus": 2}
    assert "--tensor-parallel-size" not in _server(spec)["command"]


def test_onnxruntime_runs_the_engine_server_on_its_variant() -> None:
    assert _server({})["command"] == [
        *("python", "-m", "serving.engines.server", "--model", "digits", "--version", "1", "--bundle", "/bundle"),
        *("--variant", "onnxruntime-cpu-int8", "--host", "0.0.0.0", "--port", "8000"),
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_port_of_the_spec_reaches_command_and_container(engine: str) -> None:
    server = _server(_engine(engine) | {"port": 9123})
    assert "9123" in " ".join(server["command"])
    assert server["ports"][0]["containerPort"] == 9123


@pytest.mark.parametrize("engine", ENGINES)
def test_startup_is_given_the_time_that_the_spec_says(engine: str) -> None:
    probe = _server(_engine(engine) | {"startupSeconds": 1201})["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1201
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) < 1201


@pytest.mark.parametrize("engine", ENGINES)
def test_liveness_bears_a_minute_and_readiness_does_not(engine: str) -> None:
    server = _server(_engine(engine))
    live_, ready = server["livenessProbe"], server["readinessProbe"]
    assert live_["periodSeconds"] * live_["failureThreshold"] >= 60
    assert ready["periodSeconds"] * ready["failureThreshold"] <= 10


def test_vllm_is_asked_on_its_own_path() -> None:
    assert _server(_engine("vllm"))["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert _server(_engine("triton"))["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


@pytest.mark.parametrize("drain", [0, 30, 3600])
def test_a_replica_is_killed_only_after_it_could_drain(drain: int) -> None:
    pod = _pod({"drainSeconds": drain})
    waited = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > waited + drain


def test_old_servers_get_a_pre_stop_hook_that_they_know() -> None:
    assert _server({}, OLD)["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "5"]}}


@pytest.mark.parametrize("engine", ENGINES)
def test_pods_are_such_as_restricted_namespaces_admit(engine: str) -> None:
    pod = _pod(_engine(engine) | {"gpus": 2})
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert all(volume.keys() - {"name"} <= {"emptyDir"} for volume in pod["volumes"])


def test_home_is_where_the_server_may_write() -> None:
    server = _server(_engine("vllm", environment={"VLLM_LOGGING_LEVEL": "DEBUG"}))
    variables = {variable["name"]: variable["value"] for variable in server["env"]}
    assert variables["HOME"] == "/tmp"
    assert variables["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "/tmp" in [mount["mountPath"] for mount in server["volumeMounts"]]


def test_gpus_are_limits_and_bring_shared_memory_when_there_are_several() -> None:
    one, two = _server({"gpus": 1, "resources": {"requests": {"cpu": "4"}}}), _server({"gpus": 2})
    assert one["resources"] == {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "4", "nvidia.com/gpu": 1}}
    assert "/dev/shm" not in [mount["mountPath"] for mount in one["volumeMounts"]]
    assert "/dev/shm" in [mount["mountPath"] for mount in two["volumeMounts"]]


def test_placement_and_accounts_of_the_spec_reach_the_pod() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    pod = _pod(
        {
            "nodeSelector": {"gpu": "h200"},
            "tolerations": [toleration],
            "serviceAccountName": "reader",
            "imagePullSecrets": [{"name": "pull"}],
            "priorityClassName": "serving",
            "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        }
    )
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"gpu": "h200"}, [toleration])
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("reader", "serving")
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert {"name": "cache", "mountPath": "/cache"} in container["volumeMounts"]


def test_rollouts_never_take_a_replica_away_before_another_answers() -> None:
    spec = _create("Deployment", {"startupSeconds": 600})["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["progressDeadlineSeconds"] > 600 + SETTINGS.fetch_seconds


@pytest.mark.parametrize(("capabilities", "version"), [(NEW, "policy/v1"), (OLD, "policy/v1beta1")])
def test_disruption_budget_takes_the_version_of_the_server(capabilities: Capabilities, version: str) -> None:
    budget = _create("PodDisruptionBudget", {}, capabilities)
    assert (budget["apiVersion"], budget["spec"]["maxUnavailable"]) == (version, 1)


@pytest.mark.parametrize(("capabilities", "version"), [(NEW, "autoscaling/v2"), (OLD, "autoscaling/v2beta2")])
def test_autoscaler_takes_the_version_of_the_server(capabilities: Capabilities, version: str) -> None:
    scaler = _create("HorizontalPodAutoscaler", {"autoscaling": {"min": 2, "max": 5, "target": 70}}, capabilities)
    assert scaler["apiVersion"] == version
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 5)
    assert scaler["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


WAITING = {"autoscaling": {"min": 0, "max": 5, "metric": "vllm:num_requests_waiting", "target": 4}}


def test_keda_scales_to_zero_by_a_metric_of_prometheus() -> None:
    scaled = _create("ScaledObject", WAITING, Capabilities(keda=True), KEDA)["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 5)
    [trigger] = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "4"
    assert trigger["metadata"]["query"] == 'sum(vllm:num_requests_waiting{namespace="team",pod=~"digits-.+"})'


@pytest.mark.parametrize(
    ("capabilities", "settings"), [(Capabilities(), KEDA), (Capabilities(keda=True), SETTINGS)], ids=["keda", "query"]
)
def test_without_keda_one_replica_stays_and_status_says_so(
    capabilities: Capabilities, settings: DeploymentSettings
) -> None:
    plan = _plan(WAITING, capabilities, settings)
    [scaler] = [child for child in plan.creates if child["kind"] == "HorizontalPodAutoscaler"]
    assert scaler["spec"]["minReplicas"] == 1
    assert scaler["spec"]["metrics"][0]["pods"]["metric"]["name"] == "vllm:num_requests_waiting"
    assert "needs KEDA" in _degraded(plan)


def test_policy_lets_named_namespaces_and_its_own_in() -> None:
    policy = _create("NetworkPolicy", {"networkPolicy": {"allowFromNamespaces": ["b", "a"]}})["spec"]
    [ingress] = policy["ingress"]
    assert ingress["from"][0] == {"podSelector": {}}
    assert ingress["from"][1]["namespaceSelector"]["matchExpressions"][0]["values"] == ["a", "b"]
    assert ingress["ports"] == [{"port": 8000, "protocol": "TCP"}]


def test_policy_by_namespace_is_told_to_need_a_label_on_old_servers() -> None:
    assert "kubernetes.io/metadata.name" in _degraded(_plan({"networkPolicy": {"allowFromNamespaces": ["a"]}}, OLD))


def test_kserve_runs_the_same_pod() -> None:
    plan = _plan({"kserve": True, "replicas": 3}, Capabilities(kserve=True))
    assert [child["kind"] for child in plan.creates] == ["InferenceService", "PodDisruptionBudget"]
    predictor = plan.creates[0]["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (3, 3)
    assert predictor["containers"][0]["name"] == "kserve-container"
    assert predictor["containers"][0]["command"] == _server({})["command"]
    assert predictor["initContainers"] == _pod({})["initContainers"]


def test_kserve_is_told_to_stop_rather_than_to_run_no_replica() -> None:
    service = _create("InferenceService", {"kserve": True, "replicas": 0}, Capabilities(kserve=True))
    assert service["metadata"]["annotations"]["serving.kserve.io/stop"] == "true"


def test_without_kserve_plain_objects_serve_and_status_says_so() -> None:
    plan = _plan({"kserve": True})
    assert "Deployment" in [child["kind"] for child in plan.creates]
    assert "needs KServe" in _degraded(plan)
