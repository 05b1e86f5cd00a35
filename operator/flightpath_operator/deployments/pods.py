"""The pod of a model server: it fetches and verifies its bundle, serves it read-only, and drains before it ends."""

from typing import Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.deployments.servers import BUNDLE, ENTRY, SCRATCH, command, environment, probes
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.names import TENANT_LABEL
from flightpath_operator.plan import Object

SERVER: Final = "server"
FETCH: Final = "fetch"
_SLEEP_ACTION_MINOR: Final = 30
"""First minor in which a preStop hook can sleep without a program of the image."""
_END_MARGIN_S: Final = 10
"""Between the end of draining and SIGKILL."""
_BUNDLE_VOLUME: Final = "flightpath-bundle"
_SCRATCH_VOLUME: Final = "flightpath-scratch"
_SHARED_MEMORY_VOLUME: Final = "flightpath-shm"


def pod_labels(spec: ModelDeploymentSpec) -> Object:
    """Labels of the pods beside those that the selector needs."""
    tenant = {TENANT_LABEL: spec.tenant} if spec.tenant else {}
    return {"app.kubernetes.io/component": "model-server"} | tenant


def pod_spec(spec: ModelDeploymentSpec, settings: DeploymentSettings, *, minor: int, server: str = SERVER) -> Object:
    """The pod's spec; `server` names the container that serves."""
    optional = {
        "nodeSelector": spec.node_selector,
        "tolerations": [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in spec.tolerations],
        "serviceAccountName": spec.service_account_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
        "priorityClassName": spec.priority_class_name,
    }
    return {
        "automountServiceAccountToken": False,
        # Variables such as VLLM_PORT of a Service called vllm would configure the server.
        "enableServiceLinks": False,
        "securityContext": _pod_security(settings),
        "terminationGracePeriodSeconds": settings.deregister_seconds + spec.drain_seconds + _END_MARGIN_S,
        "initContainers": [_fetch_container(spec, settings)],
        "containers": [_server_container(spec, settings, minor) | {"name": server}],
        "volumes": _volumes(spec),
        **{key: value for key, value in optional.items() if value},
    }


def _server_container(spec: ModelDeploymentSpec, settings: DeploymentSettings, minor: int) -> Object:
    shared_memory = [{"name": _SHARED_MEMORY_VOLUME, "mountPath": "/dev/shm"}] if spec.gpus > 1 else []
    return {
        "image": spec.runtime.image,
        "command": command(spec),
        "env": environment(spec),
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "resources": _resources(spec),
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": _pre_stop(settings.deregister_seconds, minor)},
        "volumeMounts": [
            {"name": _BUNDLE_VOLUME, "mountPath": BUNDLE, "readOnly": True},
            {"name": _SCRATCH_VOLUME, "mountPath": SCRATCH},
            *shared_memory,
            *spec.volume_mounts,
        ],
        **probes(spec),
    }


def _fetch_container(spec: ModelDeploymentSpec, settings: DeploymentSettings) -> Object:
    bundle = spec.bundle
    credentials = {"envFrom": [{"secretRef": {"name": bundle.store_secret}}]} if bundle.store_secret else {}
    return {
        "name": FETCH,
        "image": settings.flightpath_image,
        "command": [
            *("python", "-m", "serving.fetch_bundle", "--uri", bundle.uri, "--digest", bundle.digest),
            *("--target", BUNDLE, "--variant", spec.runtime.variant, "--entry-link", ENTRY),
        ],
        "env": [{"name": "HOME", "value": SCRATCH}],
        "resources": {"requests": dict(settings.fetch_requests)},
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _BUNDLE_VOLUME, "mountPath": BUNDLE},
            {"name": _SCRATCH_VOLUME, "mountPath": SCRATCH},
            *spec.volume_mounts,
        ],
        **credentials,
    }


def _volumes(spec: ModelDeploymentSpec) -> list[Object]:
    shared_memory = [{"name": _SHARED_MEMORY_VOLUME, "emptyDir": {"medium": "Memory"}}] if spec.gpus > 1 else []
    return [
        {"name": _BUNDLE_VOLUME, "emptyDir": {}},
        {"name": _SCRATCH_VOLUME, "emptyDir": {}},
        *shared_memory,
        *spec.volumes,
    ]


def _resources(spec: ModelDeploymentSpec) -> Object:
    gpus = {spec.gpu_resource: spec.gpus} if spec.gpus else {}
    given = spec.resources
    limits = (dict(given.limits) if given else {}) | gpus
    requests = (dict(given.requests) if given else {}) | gpus
    return {key: value for key, value in (("limits", limits), ("requests", requests)) if value}


def _pre_stop(wait_s: int, minor: int) -> Object:
    """Keeps serving until proxies have dropped the replica; SIGTERM then lets running requests finish."""
    if minor >= _SLEEP_ACTION_MINOR:
        return {"sleep": {"seconds": wait_s}}
    return {"exec": {"command": ["sleep", str(wait_s)]}}


def _pod_security(settings: DeploymentSettings) -> Object:
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.run_as,
        "runAsGroup": settings.run_as,
        "fsGroup": settings.run_as,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
