"""What a model server tells Prometheus about itself, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class EngineMetrics:
    """Requests, errors, latency and batch sizes of one model server."""

    def __init__(self, *, model: str, version: str) -> None:
        registry = self.registry = CollectorRegistry()
        names = ("model", "version")
        self._requests = Counter(
            "flightpath_engine_requests_total",
            "Inference requests by HTTP status.",
            (*names, "code"),
            registry=registry,
        )
        self._model, self._version = model, version
        latency = Histogram(
            "flightpath_engine_request_seconds",
            "Successful requests: read, wait, run.",
            names,
            registry=registry,
            buckets=_LATENCY_S,
        )
        rows = Histogram(
            "flightpath_engine_batch_rows", "Rows of one run of the model.", names, registry=registry, buckets=_ROWS
        )
        waiting = Gauge("flightpath_engine_queued_requests", "Requests that wait for a run.", names, registry=registry)
        self._latency = latency.labels(model, version)
        self._rows = rows.labels(model, version)
        self._waiting = waiting.labels(model, version)
        self._by_code: dict[int, Counter] = {}

    def count(self, code: int) -> None:
        if code not in self._by_code:
            self._by_code[code] = self._requests.labels(self._model, self._version, str(code))
        self._by_code[code].inc()

    def observe_latency(self, seconds: float) -> None:
        self._latency.observe(seconds)

    def observe_batch(self, rows: int) -> None:
        self._rows.observe(rows)

    def render(self, *, queued: int) -> bytes:
        self._waiting.set(queued)
        return generate_latest(self.registry)
