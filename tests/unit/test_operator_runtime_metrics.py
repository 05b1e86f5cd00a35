"""What the operator counts from its caches: jobs, GPUs, and workers by the network that they were given."""

from typing import Any

from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.metrics import OperatorMetrics


def _job(name: str, *, ready: int, gpus: int = 0, **environment: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "research", "uid": name, "resourceVersion": "1"}
    status = {"phase": "Running", "workers": {"ready": ready}, "environment": environment}
    return {"kind": "TrainingJob", "metadata": metadata, "spec": {"gpusPerWorker": gpus}, "status": status}


def test_workers_are_counted_by_the_network_of_their_collectives() -> None:
    jobs = Cache()
    jobs.put(_job("a", ready=4, gpus=8, FLIGHTPATH_FABRIC="efa", NCCL_SOCKET_IFNAME="eth"))
    jobs.put(_job("b", ready=2, gpus=8, FLIGHTPATH_FABRIC="efa", NCCL_SOCKET_IFNAME="eth"))
    jobs.put(_job("c", ready=3, GLOO_SOCKET_IFNAME="eth0"))
    metrics = OperatorMetrics(depth=lambda: 0, parents={"TrainingJob": jobs})

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("flightpath_operator_running_workers", fabric="efa", interface="eth") == 6
    assert value("flightpath_operator_running_workers", fabric="", interface="eth0") == 3
    assert value("flightpath_operator_allocated_gpus", namespace="research") == 48


def test_a_job_that_has_no_status_yet_counts_no_worker() -> None:
    jobs = Cache()
    jobs.put({**_job("a", ready=0), "status": None})
    metrics = OperatorMetrics(depth=lambda: 0, parents={"TrainingJob": jobs})
    labels = {"fabric": "", "interface": ""}
    assert metrics.registry.get_sample_value("flightpath_operator_running_workers", labels) == 0
