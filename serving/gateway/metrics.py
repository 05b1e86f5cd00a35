"""What the gateway tells Prometheus, in a registry of its own. Label children are looked up once."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


Endings = Mapping[tuple[str, str], Mapping[str, int]]
"""How often attempts ended in each way, by (model, backend id)."""


class _Attempts(Collector):
    """Reads the ledger when Prometheus asks: an attempt is counted once, at one place."""

    def __init__(self, read: Callable[[], Endings]) -> None:
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "flightpath_gateway_attempts_total",
            "Attempts on a backend by how they ended, users' and replayed ones; mirrored ones excluded.",
            labels=("model", "backend", "outcome"),
        )
        for (model, backend_id), endings in self._read().items():
            for outcome, count in endings.items():
                family.add_metric((model, backend_id, outcome), count)
        yield family


class GatewayMetrics:
    """Counters of one gateway process."""

    def __init__(self, *, region: str, endings: Callable[[], Endings] = dict) -> None:
        registry = self.registry = CollectorRegistry()
        registry.register(_Attempts(endings))
        self._requests = Counter(
            "flightpath_gateway_requests_total",
            "Requests of users by the HTTP status they got; version is empty when nobody answered.",
            ("model", "version", "code"),
            registry=registry,
        )
        self._latency = Histogram(
            "flightpath_gateway_request_seconds",
            "Successful requests, fail-over included.",
            ("model", "version"),
            registry=registry,
            buckets=_LATENCY_S,
        )
        self._errors = Counter(
            "flightpath_gateway_backend_errors_total",
            "Attempts that failed, were late or found no room, by backend and error code.",
            ("model", "backend", "kind"),
            registry=registry,
        )
        self._failovers = Counter(
            "flightpath_gateway_failovers_total",
            "Requests that another backend answered than the one chosen first.",
            ("model",),
            registry=registry,
        )
        self._mirrored = Counter(
            "flightpath_gateway_mirrored_total",
            "Mirrored requests: agreed, differed, failed, dropped.",
            ("model", "result"),
            registry=registry,
        )
        self._ejections = Counter(
            "flightpath_gateway_ejections_total",
            "How often a backend was passed over for a while because it kept failing.",
            ("model", "backend"),
            registry=registry,
        )
        self._ejected = Gauge(
            "flightpath_gateway_backend_ejected",
            "1 while a backend of the route is passed over, else 0.",
            ("model", "backend"),
            registry=registry,
        )
        self._tokens = Counter(
            "flightpath_gateway_tokens_total",
            "Tokens that model servers reported in `usage`: in (prompt) and out (completion).",
            ("model", "version", "direction"),
            registry=registry,
        )
        self._first_token = Histogram(
            "flightpath_gateway_time_to_first_token_seconds",
            "Streams, from the attempt's start to the first event with content.",
            ("model", "version"),
            registry=registry,
            buckets=_FIRST_TOKEN_S,
        )
        self._between_tokens = Histogram(
            "flightpath_gateway_time_between_tokens_seconds",
            "Streams, between one event with content and the next.",
            ("model", "version"),
            registry=registry,
            buckets=_BETWEEN_TOKENS_S,
        )
        self._in_flight = Gauge(
            "flightpath_gateway_in_flight_requests", "Inference requests in progress.", registry=registry
        )
        info = Gauge("flightpath_gateway_info", "Always 1.", ("region",), registry=registry)
        info.labels(region).set(1)
        self._codes: dict[tuple[str, str, int], Counter] = {}
        self._latencies: dict[tuple[str, str], Histogram] = {}

    def count_request(self, model: str, version: str, code: int) -> None:
        key = (model, version, code)
        if key not in self._codes:
            self._codes[key] = self._requests.labels(model, version, str(code))
        self._codes[key].inc()

    def observe_latency(self, model: str, version: str, seconds: float) -> None:
        key = (model, version)
        if key not in self._latencies:
            self._latencies[key] = self._latency.labels(model, version)
        self._latencies[key].observe(seconds)

    def count_error(self, model: str, backend_id: str, kind: str) -> None:
        self._errors.labels(model, backend_id, kind).inc()

    def count_failover(self, model: str) -> None:
        self._failovers.labels(model).inc()

    def count_mirrored(self, model: str, result: str) -> None:
        self._mirrored.labels(model, result).inc()

    def count_ejection(self, model: str, backend_id: str) -> None:
        self._ejections.labels(model, backend_id).inc()

    def count_tokens(self, model: str, version: str, *, tokens_in: int, tokens_out: int) -> None:
        self._tokens.labels(model, version, "in").inc(tokens_in)
        self._tokens.labels(model, version, "out").inc(tokens_out)

    def observe_first_token(self, model: str, version: str, seconds: float) -> None:
        self._first_token.labels(model, version).observe(seconds)

    def between_tokens(self, model: str, version: str) -> Callable[[float], None]:
        """What a stream calls with the seconds between two events; looked up once for each stream."""
        observe: Callable[[float], None] = self._between_tokens.labels(model, version).observe
        return observe

    def render(self, *, in_flight: int, ejected: Mapping[tuple[str, str], bool]) -> bytes:
        """Everything as text; `ejected` names each routed backend by (model, id)."""
        self._in_flight.set(in_flight)
        self._ejected.clear()
        for labels, is_ejected in ejected.items():
            self._ejected.labels(*labels).set(is_ejected)
        return generate_latest(self.registry)
