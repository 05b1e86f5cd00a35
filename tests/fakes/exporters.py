"""What a cluster's exporters would say, in their own formats: emulated, for a Prometheus where no cluster is.

GPUs (dcgm-exporter), kubelets, kube-state-metrics and vLLM are texts in the form that those print. The operator's are
its own class over a cache of this file's jobs.
"""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.metrics import OperatorMetrics
from prometheus_client import generate_latest

NODES = ({"node_group": "training", "instance_type": "p4d.24xlarge", "capacity_type": "on_demand"},)
"""What the relabelling of nodes would find; the type has a price in examples/infra/prices.json."""
_GPUS = 8
_HELD = 6


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A Prometheus that leaves in the middle, at its limit or at the end of a test, is no fault."""


class Exporters:
    """One server on loopback with a path for each exporter. Use `with`; `xid` is what the first GPU reports."""

    def __init__(self) -> None:
        self.xid = 0
        self._started = time.time()
        self._operator = _operator()
        paths: dict[str, Callable[[], str]] = {
            "/dcgm": self._dcgm,
            "/vllm": self._vllm,
            "/kubelet": lambda: "kubelet_running_pods 12\n",
            "/cadvisor": lambda: 'container_cpu_usage_seconds_total{namespace="research",pod="a-0"} 12\n',
            "/kube-state-metrics": self._kube_state,
            "/otel-collector": lambda: "otelcol_process_uptime 5\n",
            "/operator": self._operator_text,
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = paths[self.path]().encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _dcgm(self) -> str:
        fields = {
            "DCGM_FI_DEV_GPU_UTIL": 91,
            "DCGM_FI_DEV_FB_USED": 30_000,
            "DCGM_FI_DEV_FB_FREE": 10_000,
            "DCGM_FI_DEV_GPU_TEMP": 61,
            "DCGM_FI_DEV_POWER_USAGE": 287.5,
            "DCGM_FI_PROF_NVLINK_TX_BYTES": 1_200_000_000,
            "DCGM_FI_PROF_NVLINK_RX_BYTES": 1_100_000_000,
        }
        lines = [f"{name}{_gpu(n)} {value}" for name, value in fields.items() for n in range(_GPUS)]
        lines += [f"DCGM_FI_DEV_XID_ERRORS{_gpu(n)} {self.xid if n == 0 else 0}" for n in range(_GPUS)]
        return "\n".join(lines) + "\n"

    def _vllm(self) -> str:
        labels = '{engine="0",model_name="tiny"}'
        preempted = int(time.time() - self._started)
        return (
            f"vllm:num_requests_running{labels} 3\nvllm:num_requests_waiting{labels} 1\n"
            f"vllm:kv_cache_usage_perc{labels} 0.4\nvllm:num_preemptions_total{labels} {preempted}\n"
        )

    def _kube_state(self) -> str:
        labels = '{namespace="flightpath",cronjob="flightpath-backup"}'
        return f"kube_cronjob_status_last_successful_time{labels} {self._started - 300:.0f}\n"

    def _operator_text(self) -> str:
        """As if it had worked since the last question: counters move."""
        _work(self._operator)
        return generate_latest(self._operator.registry).decode()


def _gpu(number: int) -> str:
    pod = f'container="worker",namespace="research",pod="a-{number}"' if number < _HELD else 'container="",pod=""'
    card = f'gpu="{number}",UUID="GPU-{number:08d}",device="nvidia{number}",modelName="NVIDIA A100-SXM4-40GB"'
    return f'{{{card},Hostname="ip-10-0-1-7",{pod}}}'


def _operator() -> OperatorMetrics:
    jobs = Cache()
    network = {"FLIGHTPATH_FABRIC": "efa", "NCCL_SOCKET_IFNAME": "eth"}
    for name, phase in (("a", "Running"), ("b", "Pending")):
        metadata = {"name": name, "namespace": "research", "uid": name, "resourceVersion": "1"}
        status = {"phase": phase, "workers": {"ready": 6 if phase == "Running" else 0}, "environment": network}
        jobs.put({"kind": "TrainingJob", "metadata": metadata, "spec": {"gpusPerWorker": 1}, "status": status})
    return OperatorMetrics(depth=lambda: 2, parents={"TrainingJob": jobs})


def _work(metrics: OperatorMetrics) -> None:
    metrics.leading.set(1)
    for phase in ("decide", "write"):
        metrics.reconcile_seconds.labels(kind="TrainingJob", phase=phase).observe(0.004)
    metrics.failures.labels(kind="TrainingJob", reason="conflict").inc(0)
    metrics.writes.labels(kind="TrainingJob").inc()
    metrics.watch_silence.labels(kind="TrainingJob").set(2)
    metrics.count("flightpath_operator_time_to_running_seconds", {}, 40)
    metrics.count("flightpath_operator_restarts_total", {"cause": "NodeLost"}, 0)
    metrics.count("flightpath_operator_lost_steps_total", {}, 1)
    metrics.count("flightpath_operator_lost_seconds_total", {}, 1)
