"""How each engine is started and asked for its health inside a pod.

The region's agent has the same knowledge for local processes; here paths and addresses are a pod's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.plan import Object

BUNDLE: Final = "/bundle"
"""Where the bundle is mounted."""
ENTRY: Final = f"{BUNDLE}/.entry"
"""Link to the variant's file or folder, made by the fetching container: only it can read the manifest."""
SCRATCH: Final = "/tmp"
"""The only folder that a server may write to."""
_STARTUP_PERIOD_S: Final = 5
_LIVENESS_FAILURES: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """One engine's command and its paths of health."""

    before: Callable[[ModelDeploymentSpec], list[str]]
    """Command up to the spec's arguments."""
    after: Callable[[ModelDeploymentSpec], list[str]]
    """What follows the spec's arguments and overrides them."""
    ready_path: str
    live_path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the spec's environment may override."""


def _listen(spec: ModelDeploymentSpec) -> list[str]:
    return ["--host", "0.0.0.0", "--port", str(spec.port)]


def _engine_server_arguments(spec: ModelDeploymentSpec) -> list[str]:
    model = ["--model", spec.model, "--version", "1", "--bundle", BUNDLE, "--variant", spec.runtime.variant]
    return [*model, *_listen(spec)]


def _vllm_arguments(spec: ModelDeploymentSpec) -> list[str]:
    parallel = ["--tensor-parallel-size", str(spec.gpus)] if spec.gpus > 1 and not _says_parallelism(spec) else []
    # Without it vLLM aborts running streams on SIGTERM.
    drain = ["--shutdown-timeout", str(spec.drain_seconds)]
    return [*parallel, "--served-model-name", spec.model, *_listen(spec), *drain]


def _says_parallelism(spec: ModelDeploymentSpec) -> bool:
    return any("parallel-size" in word or word in ("-tp", "-pp", "-dp") for word in spec.runtime.arguments)


def _triton_arguments(spec: ModelDeploymentSpec) -> list[str]:
    return [
        f"--model-repository={ENTRY}",
        "--http-address=0.0.0.0",
        f"--http-port={spec.port}",
        "--allow-grpc=false",
        f"--exit-timeout-secs={spec.drain_seconds}",
    ]


_ENGINE_SERVER: Final = Server(
    before=lambda _: ["python", "-m", "serving.engines.server"],
    after=_engine_server_arguments,
    ready_path="/v2/health/ready",
    live_path="/v2/health/live",
)
SERVERS: Final[Mapping[str, Server]] = {
    "onnxruntime": _ENGINE_SERVER,
    "tensorrt": _ENGINE_SERVER,
    "triton": Server(
        before=lambda _: ["tritonserver"],
        after=_triton_arguments,
        ready_path="/v2/health/ready",
        live_path="/v2/health/live",
    ),
    "vllm": Server(
        before=lambda _: ["vllm", "serve", ENTRY],
        after=_vllm_arguments,
        ready_path="/health",
        live_path="/health",
        environment={
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CACHE_ROOT": f"{SCRATCH}/vllm",
            "HF_HOME": f"{SCRATCH}/huggingface",
            "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH}/inductor",
        },
    ),
}


def command(spec: ModelDeploymentSpec) -> list[str]:
    """The server's whole command line; what decides where it listens and what it serves comes last and wins."""
    server = SERVERS[spec.runtime.engine]
    return [*server.before(spec), *spec.runtime.arguments, *server.after(spec)]


def environment(spec: ModelDeploymentSpec) -> list[Object]:
    """Variables of the server, in the order of their names."""
    defaults = {"HOME": SCRATCH, "XDG_CACHE_HOME": f"{SCRATCH}/cache", "XDG_CONFIG_HOME": f"{SCRATCH}/config"}
    merged = defaults | dict(SERVERS[spec.runtime.engine].environment) | spec.runtime.environment
    return [{"name": name, "value": value} for name, value in sorted(merged.items())]


def probes(spec: ModelDeploymentSpec) -> Object:
    """Startup waits as long as the spec allows; readiness is quick; liveness bears a minute of overload."""
    server = SERVERS[spec.runtime.engine]
    return {
        "startupProbe": {
            **_ask(server.ready_path),
            "periodSeconds": _STARTUP_PERIOD_S,
            "timeoutSeconds": 3,
            "failureThreshold": math.ceil(spec.startup_seconds / _STARTUP_PERIOD_S),
        },
        "readinessProbe": {
            **_ask(server.ready_path),
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            **_ask(server.live_path),
            "periodSeconds": 10,
            "timeoutSeconds": 8,
            "failureThreshold": _LIVENESS_FAILURES,
        },
    }


def _ask(path: str) -> Object:
    return {"httpGet": {"path": path, "port": "http"}}
