"""What the dashboards show: one table, from which dashboards.py writes Grafana's JSON.

Every series is a recorded one, so that a dashboard asks nothing that the rules do not compute, shows what the alerts
judge, and works on the global Prometheus, which holds recorded series alone.
"""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Series:
    """One recorded series. `legend` takes its labels in double braces; the region comes first by itself."""

    record: str
    legend: str = ""
    everywhere: bool = False
    """Recorded over all regions: it has no region to choose by."""

    @property
    def expr(self) -> str:
        return self.record if self.everywhere else f'{self.record}{{region=~"$region"}}'


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    """Grafana's unit id."""
    series: tuple[Series, ...]
    note: str = ""
    limit: float | None = None
    """Where an objective or alert begins, drawn as a line."""
    stat: bool = False
    """The present value, large, in place of its course."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]] = field(default_factory=dict)


def _one(title: str, unit: str, record: str, legend: str = "", *, limit: float | None = None, note: str = "") -> Panel:
    return Panel(title, unit, (Series(f"flightpath:{record}", legend),), note, limit)


def _now(title: str, unit: str, record: str, legend: str = "", *, everywhere: bool = False) -> Panel:
    return Panel(title, unit, (Series(f"flightpath:{record}", legend, everywhere),), stat=True)


SERVING: Final = Board(
    uid="flightpath-serving",
    title="Flightpath / serving",
    rows={
        "Users": (
            _one("Requests", "reqps", "gateway_requests:rate5m", "{{model}} v{{version}}"),
            _one("Answers by status", "reqps", "gateway_responses:rate5m", "{{code}}"),
            _one("Errors", "percentunit", "gateway_errors:ratio_rate5m", "{{model}}", limit=0.0005),
            _one("Latency p95 of the region", "s", "region_request_seconds:p95_rate5m", "p95", limit=0.05),
            Panel(
                "Latency by model",
                "s",
                tuple(
                    Series(f"flightpath:gateway_request_seconds:{p}_rate5m", f"{{{{model}}}} {p}")
                    for p in ("p50", "p95", "p99")
                ),
            ),
            _one("In flight", "short", "gateway_in_flight:sum"),
        ),
        "Backends": (
            _one("Fail-overs", "percentunit", "gateway_failovers:ratio_rate5m", "{{model}}", limit=0.05),
            _one("Failed attempts", "reqps", "gateway_backend_errors:rate5m", "{{backend}} {{kind}}"),
            _one("Passed over", "short", "gateway_ejected:max", "{{backend}}"),
            _one("Mirrored", "reqps", "gateway_mirrored:rate5m", "{{model}} {{result}}"),
            _one("Model servers: p95", "s", "engine_request_seconds:p95_rate5m", "{{model}}"),
            _one("Model servers: requests", "reqps", "engine_requests:rate5m", "{{model}} v{{version}}"),
            _one("Rows in a batch", "short", "engine_batch_rows:avg_rate5m", "{{model}}"),
            _one("Waiting in model servers", "short", "engine_queued:sum", "{{model}}", limit=64),
        ),
        "Language models": (
            _one("Tokens", "short", "gateway_tokens:rate5m", "{{model}} {{direction}}"),
            _one("First token p95", "s", "gateway_first_token_seconds:p95_rate5m", "{{model}}", limit=2),
            _one("Between tokens p95", "s", "gateway_between_tokens_seconds:p95_rate5m", "{{model}}"),
            Panel(
                "vLLM requests",
                "short",
                (
                    Series("flightpath:vllm_running:sum", "{{model_name}} running"),
                    Series("flightpath:vllm_waiting:sum", "{{model_name}} waiting"),
                ),
            ),
            _one("KV cache", "percentunit", "vllm_kv_cache:max_ratio", "{{model_name}}", limit=0.9),
            _one("Preemptions", "reqps", "vllm_preemptions:rate5m", "{{model_name}}"),
        ),
    },
)

REGIONS: Final = Board(
    uid="flightpath-regions",
    title="Flightpath / regions",
    rows={
        "Objectives": (
            _now("Attained over three days", "percentunit", "slo_attained:ratio_3d", "{{slo}}"),
            _one("Objectives", "percentunit", "slo_objective:ratio", "{{slo}}"),
            _one("Burn rate over one hour", "short", "slo_burn:rate1h", "{{slo}}", limit=14.4),
            _one("Burn rate over six hours", "short", "slo_burn:rate6h", "{{slo}}", limit=6),
            _one("Burn rate over three days", "short", "slo_burn:rate3d", "{{slo}}", limit=1),
        ),
        "All regions": (
            _now("Regions that report", "short", "regions_reporting:count", everywhere=True),
            _now("Worst p95", "s", "global_request_seconds:max_p95_rate5m", everywhere=True),
            Panel("Requests", "reqps", (Series("flightpath:global_requests:rate5m", "{{model}}", everywhere=True),)),
        ),
        "Probes": (
            _one("Success", "percentunit", "probe_success:avg5m", "to {{target}}"),
            _one("Duration", "s", "probe_seconds:avg5m", "to {{target}}"),
            _one("Targets that are scraped", "percentunit", "targets_up:ratio", "{{job}}"),
        ),
        "Rollouts": (
            _one("By state", "short", "rollouts:sum", "{{state}}"),
            _one("Under way", "short", "rollouts_under_way:sum"),
            _one("Time in a state", "s", "rollout_state_seconds:avg_rate1d", "{{state}}"),
            _one("Promotions of a day", "short", "promotions:increase1d", "{{model}} {{result}}"),
            _one("Rolled back", "short", "promotions_rolled_back:increase15m", "{{model}}"),
            _one("Rollback to last bad answer p95", "s", "rollback_last_bad_answer_seconds:p95_rate1d", limit=10),
            _one("Rollback to final weights p95", "s", "rollback_switch_seconds:p95_rate1d"),
            _one("Restarts of model servers", "short", "server_restarts:increase15m", "{{release}}", limit=3),
            _one("Age of the newest backup", "s", "backup_age_seconds:max", limit=2700),
        ),
    },
)

TRAINING: Final = Board(
    uid="flightpath-training",
    title="Flightpath / training",
    rows={
        "Jobs": (
            _one("By phase", "short", "training_jobs:max", "{{phase}}"),
            _one("GPUs of running jobs", "short", "training_gpus:max", "{{namespace}}"),
            _one("Workers by fabric", "short", "training_workers:max", "{{fabric}} {{interface}}"),
            _one("Restarts of an hour", "short", "training_restarts:increase1h", "{{cause}}", limit=5),
            _one("Lost steps of an hour", "short", "training_lost_steps:increase1h"),
            _one("Lost time of an hour", "s", "training_lost_seconds:increase1h"),
            _one("Time to running p95", "s", "training_time_to_running_seconds:p95_rate1d"),
        ),
        "GPUs": (
            _one("Busy, of those that pods hold", "percentunit", "gpus_busy:ratio", limit=0.85),
            _one("Allocated", "percentunit", "gpus_allocated:ratio", limit=0.9),
            _one("Utilisation", "percentunit", "gpu_utilisation:ratio", "{{node_group}}"),
            _one("Utilisation over a day", "percentunit", "gpu_utilisation:ratio_avg1d", "{{node_group}}"),
            _one("GPUs", "short", "gpus:count", "{{node_group}}"),
            _one("Memory", "percentunit", "gpu_memory_used:ratio", "{{node_group}}"),
            _one("NVLink", "Bps", "gpu_nvlink_bytes:sum", "{{node_group}}"),
            _one("Hottest", "celsius", "gpu_temperature_celsius:max", "{{node_group}}", limit=87),
            _one("Power", "watt", "gpu_power_watts:sum", "{{node_group}}"),
            _one("Xid reports", "short", "gpu_xid:changes15m", "{{Hostname}} {{gpu}}", limit=0),
        ),
    },
)

OPERATOR: Final = Board(
    uid="flightpath-operator",
    title="Flightpath / operator",
    rows={
        "Work": (
            _now("Leading", "short", "operator_leading:max"),
            _one("Waiting", "short", "operator_queue_depth:max", limit=100),
            _one("Reconcile p95", "s", "operator_reconcile_seconds:p95_rate5m", "{{kind}} {{phase}}", limit=2),
            _one("Reconciles", "ops", "operator_reconciles:rate5m", "{{kind}}"),
            _one("Failures", "ops", "operator_failures:rate5m", "{{kind}}", limit=0.1),
            _one("Writes", "ops", "operator_writes:rate5m", "{{kind}}"),
            _one("Silence of watches", "s", "operator_watch_silence_seconds:max", "{{kind}}", limit=900),
            _one("Objects", "short", "operator_objects:max", "{{kind}} {{phase}}"),
        ),
    },
)

COST: Final = Board(
    uid="flightpath-cost",
    title="Flightpath / cost",
    rows={
        "Spend": (
            _now("All regions, a month", "currencyUSD", "global_spend:usd_per_month", everywhere=True),
            _now("GPUs in all regions", "short", "global_gpus:sum", everywhere=True),
            _one("A month at the present rate", "currencyUSD", "spend:usd_per_month"),
            _one("Of the budget", "percentunit", "spend_of_budget:ratio", limit=1),
            _one("An hour, by node group", "currencyUSD", "spend:usd_per_hour", "{{node_group}}"),
            _one("Idle GPUs, an hour", "currencyUSD", "spend_on_idle_gpus:usd_per_hour", "{{node_group}}", limit=50),
            _one("A thousand requests", "currencyUSD", "spend_per_thousand_requests:usd"),
        ),
        "What it is spent on": (
            _one("Nodes", "short", "nodes:count", "{{node_group}} {{instance_type}} {{capacity_type}}"),
            _one("Nodes without a price", "short", "nodes_unpriced:count", limit=0),
            _one("Prices", "currencyUSD", "node_price:usd_per_hour", "{{instance_type}} {{capacity_type}}"),
        ),
    },
)

BOARDS: Final = (SERVING, REGIONS, TRAINING, OPERATOR, COST)
