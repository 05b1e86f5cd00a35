"""What Prometheus may ask the operator: its queue, its speed, and the jobs that it keeps."""

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from flightpath_operator.plan import Object
from flightpath_operator.runtime.cache import Cache
from flightpath_operator.training.nccl import FABRIC

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MINUTES: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class OperatorMetrics:
    """One registry. Names and labels are what dashboards and alerts use."""

    def __init__(self, *, depth: Callable[[], int], parents: Mapping[str, Cache]) -> None:
        self.registry = CollectorRegistry()
        self._parents = parents
        registry = self.registry
        Gauge(
            "flightpath_operator_queue_depth", "Objects that wait for a reconcile or have one", registry=registry
        ).set_function(depth)
        self.reconcile_seconds = Histogram(
            "flightpath_operator_reconcile_seconds",
            "One look at one object, by phase: decide, write",
            ["kind", "phase"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "flightpath_operator_reconcile_failures_total",
            "Looks that ended in an error",
            ["kind", "reason"],
            registry=registry,
        )
        self.writes = Counter(
            "flightpath_operator_writes_total", "Calls that change something", ["kind"], registry=registry
        )
        self.leading = Gauge("flightpath_operator_leading", "1 while this process leads", registry=registry)
        self.watch_silence = Gauge(
            "flightpath_operator_watch_silence_seconds",
            "Since a watch last heard anything",
            ["kind"],
            registry=registry,
        )
        self._time_to_running = Histogram(
            "flightpath_operator_time_to_running_seconds",
            "From a job's creation until all its workers run",
            buckets=_MINUTES,
            registry=registry,
        )
        self._counters = {
            "flightpath_operator_restarts_total": Counter(
                "flightpath_operator_restarts_total", "Restarts of a group", ["cause"], registry=registry
            ),
            "flightpath_operator_lost_steps_total": Counter(
                "flightpath_operator_lost_steps_total", "Steps trained again after restarts", registry=registry
            ),
            "flightpath_operator_lost_seconds_total": Counter(
                "flightpath_operator_lost_seconds_total", "From failures to the next progress", registry=registry
            ),
        }
        self.registry.register(self)

    def count(self, name: str, labels: Mapping[str, str], amount: float) -> None:
        """A transition that a plan reports."""
        if name == "flightpath_operator_time_to_running_seconds":
            self._time_to_running.observe(amount)
            return
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def collect(self) -> Iterator[Metric]:
        """Counted when somebody asks: what the caches hold is the truth."""
        states = GaugeMetricFamily("flightpath_operator_objects", "Objects by kind and phase", labels=["kind", "phase"])
        gpus = GaugeMetricFamily("flightpath_operator_allocated_gpus", "GPUs of running jobs", labels=["namespace"])
        workers = GaugeMetricFamily(
            "flightpath_operator_running_workers",
            "Running workers by the network that their collectives were given; empty where NCCL chooses",
            labels=["fabric", "interface"],
        )
        allocated: Tally[str] = Tally()
        fabrics: Tally[tuple[str, str]] = Tally()
        for kind, cache in self._parents.items():
            tally: Tally[str] = Tally()
            for obj in cache.all():
                tally[(obj.get("status") or {}).get("phase") or "Pending"] += 1
                if kind == "TrainingJob":
                    allocated[obj["metadata"]["namespace"]] += _gpus(obj)
                    fabrics[_network(obj)] += _ready(obj)
            for phase, number in sorted(tally.items()):
                states.add_metric([kind, phase], number)
        for namespace, number in sorted(allocated.items()):
            gpus.add_metric([namespace], number)
        for network, number in sorted(fabrics.items()):
            workers.add_metric(network, number)
        yield states
        yield gpus
        yield workers


def _gpus(job: Object) -> int:
    return _ready(job) * int(job["spec"].get("gpusPerWorker") or 0)


def _ready(job: Object) -> int:
    return int(((job.get("status") or {}).get("workers") or {}).get("ready") or 0)


def _network(job: Object) -> tuple[str, str]:
    """Fabric and interface, as the status tells what the workers were given."""
    given = (job.get("status") or {}).get("environment") or {}
    return str(given.get(FABRIC, "")), str(given.get("NCCL_SOCKET_IFNAME") or given.get("GLOO_SOCKET_IFNAME") or "")
