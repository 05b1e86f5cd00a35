"""How often an agent looks, and how long it waits: the one home of what no promotion decides (table in docs/api.md)."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """All in seconds."""

    rollout_poll_s: float = 0.2
    """Between two looks at a rollout that waits: a fault shows within this."""
    rollout_retry_s: float = 1.0
    """After a rollout's step failed: a server, a disk or the gateway may be back."""
    overtaken_poll_s: float = 0.5
    """While an effect is under way, between two looks whether its rollout was aborted meanwhile."""
    rollback_poll_s: float = 0.1
    """The same for a rollback: users meet the bad version meanwhile."""
    rollback_retry_s: float = 0.5
    """The same for a rollback's step that failed."""
    promotion_poll_s: float = 0.25
    """Between two questions to a region how its rollout is doing."""
    first_backoff_s: float = 0.5
    """After a region did not answer; longer each time up to `max_backoff_s`."""
    max_backoff_s: float = 5.0
    """Longest delay between two questions to a silent region."""
    owed_every_s: float = 5.0
    """Between two calls to a region that was away when it was to be taken back."""
    watch_poll_s: float = 2.0
    """Between two questions to regions that watch a live version: they go back by themselves."""
    rollback_ask_s: float = 0.2
    """Between two questions to a region how its rollback is doing."""
    rollback_ask_retry_s: float = 0.5
    """After a region did not answer a rollback's order."""
    rollback_patience_s: float = 30.0
    """Silence after which a rollback counts as failed in a region; it is told on."""
    rollback_owed_every_s: float = 2.0
    """Between two calls to a region that was silent too long for a rollback."""
    serving_pass_s: float = 0.5
    """Between two passes over live servers, standbys and routes."""
    audit_every_s: float = 3600.0
    """From the end of an audit of bundles to the next: a rotten file is found within that and the reading."""
    stuck_after_s: float = 30.0
    """A background loop without progress for longer makes `/healthz` answer 503 and name it."""
    clock_save_s: float = 10.0
    """How often the region's clock is kept on disk: so far it may fall back when the machine starts anew."""
    registry_close_s: float = 5.0
    """How long an agent that ends waits for the registry's last transaction."""
    budget_window_s: float = 3600.0
    """How far back a live version's faults count against its error budget."""
    budget_sample_s: float = 60.0
    """Between two readings that are kept for that."""
    peers_poll_s: float = 2.0
    """Between two questions to the other regions what they serve."""
    peers_timeout_s: float = 2.0
    """For their answer."""
    home_poll_s: float = 5.0
    """Between two questions to the other regions which one leads."""
    agent_timeout_s: float = 10.0
    """For an answer of another agent to an order."""
    gateway_timeout_s: float = 5.0
    """For an answer of the region's gateway to a route or a question for counters."""
    golden_timeout_s: float = 30.0
    """For one answer of a model server to a golden sample."""
    scorer_timeout_s: float = 30.0
    """For a scorer's word on one pair of completions; after it the scorer is started anew."""


DEFAULT_TIMING: Final = Timing()
