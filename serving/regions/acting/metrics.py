"""The agent's Prometheus metrics, in a registry of their own."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.regions.deciding.promotion_state import Promotion
from serving.regions.deciding.rollback_state import LIVE as ROLLBACK_LIVE
from serving.regions.deciding.rollback_state import Rollback
from serving.regions.deciding.rollout_state import STATES, Rollout


@dataclass(slots=True)
class AgentMetrics:
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    rollouts: Gauge = field(init=False)
    state_seconds: Histogram = field(init=False)
    server_restarts: Counter = field(init=False)
    promotions: Counter = field(init=False)
    bad_answer_seconds: Histogram = field(init=False)
    switch_seconds: Histogram = field(init=False)

    def __post_init__(self) -> None:
        self.rollouts = Gauge(
            "flightpath_rollouts",
            "Rollouts of this region by state: those under way and the newest that have ended",
            ["state"],
            registry=self.registry,
        )
        self.state_seconds = Histogram(
            "flightpath_rollout_state_seconds",
            "Time that a rollout spent in a state",
            ["state"],
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
            registry=self.registry,
        )
        self.server_restarts = Counter(
            "flightpath_server_restarts",
            "Model servers started again after they ended",
            ["release"],
            registry=self.registry,
        )
        self.promotions = Counter(
            "flightpath_promotions",
            "Finished promotions of the home region",
            ["model", "result"],
            registry=self.registry,
        )

        seconds = (0.1, 0.3, 1, 3, 10, 30, 100, 300)
        self.bad_answer_seconds = Histogram(
            "flightpath_rollback_last_bad_answer_seconds",
            "From the order of a rollback to the last request that the version it replaced answered here",
            ["model"],
            buckets=seconds,
            registry=self.registry,
        )
        self.switch_seconds = Histogram(
            "flightpath_rollback_switch_seconds",
            "From the order of a rollback to the gateway having the final weights here",
            ["model"],
            buckets=seconds,
            registry=self.registry,
        )

    def promotion_finished(self, promotion: Promotion) -> None:
        self.promotions.labels(model=promotion.release.model, result=promotion.state).inc()

    def rollback_settled(self, rollback: Rollback) -> None:
        """A rollback whose replaced version answered nothing after the order counts in the switch alone."""
        if rollback.state == ROLLBACK_LIVE and rollback.weights_at is not None:
            self.switch_seconds.labels(model=rollback.model).observe(rollback.weights_at - rollback.ordered_at)
        if rollback.last_bad_answer_at is not None:
            seconds = rollback.last_bad_answer_at - rollback.ordered_at
            self.bad_answer_seconds.labels(model=rollback.model).observe(max(0.0, seconds))

    def rollout_changed(self, before: Rollout, after: Rollout) -> None:
        """Record the time of every step that this change closed."""
        closed = {(step.state, step.started_at) for step in before.steps if step.finished_at is not None}
        for step in after.steps:
            if step.finished_at is not None and (step.state, step.started_at) not in closed:
                self.state_seconds.labels(state=step.state).observe(max(0.0, step.finished_at - step.started_at))

    def render(self, rollouts: Iterable[Rollout]) -> bytes:
        """The exposition, with the present number of rollouts in each state."""
        counts = dict.fromkeys(STATES, 0)
        for rollout in rollouts:
            counts[rollout.state] += 1
        for state, count in counts.items():
            self.rollouts.labels(state=state).set(count)
        return generate_latest(self.registry)
