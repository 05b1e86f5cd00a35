"""What an operator may set about TrainingJobs, apart from the jobs themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """Same for all jobs of one operator."""

    progress_url: Callable[[str, str], str]
    """Where the workers of the job (namespace, name) post their progress."""
    progress_token: Callable[[str, int], str]
    """The token of one attempt (uid, attempt): workers of an older attempt cannot report for a newer one."""
    cordon_nodes: bool = False
    """Mark nodes with GPU faults unschedulable for everybody: needs the right to patch nodes."""
    scheduler_name: str = ""
    """Scheduler of the workers where PodGroups are served; empty takes the cluster's default."""
    resize_wait: timedelta = timedelta(minutes=10)
    """How long a resize waits for the next checkpoint before it is done without one."""
    grow_interval: timedelta = timedelta(minutes=15)
    """How long an elastic job that found too few nodes trains before it asks for more."""
    infrastructure_budget: int = 20
    """Infrastructure failures in a row, none of them followed by progress, after which the job fails."""
    stable_after: timedelta = timedelta(minutes=10)
    """A group that ran so long is taken for healthy though it reports nothing: its failures count anew."""
    verdict_wait: timedelta = timedelta(seconds=10)
    """A worker that failed is not judged for so long while others run: the end of one of them may explain it, and
    each kubelet tells of its own pods in its own time, at the latest with its next round (10 s)."""
    lost_node_after: timedelta = timedelta(seconds=60)
    """A node not ready for so long is lost. Kubernetes itself waits 300 s before it evicts."""
    force_delete_after: timedelta = timedelta(seconds=60)
    """Wait beyond the grace period for pods on lost nodes: nobody there can confirm their end."""
    deletion_wait: timedelta = timedelta(minutes=10)
    """A deleted job waits so long for its pods; then it goes, and their owner reference ends them."""
    progress_interval: timedelta = timedelta(seconds=10)
    """Progress is written to the status at most so often, checkpoints and ends at once."""
    stall_floor: timedelta = timedelta(seconds=60)
    """No silence below this is a stall."""
    retry_first: timedelta = timedelta(seconds=5)
    """Wait after the first refusal by the API server (quota, admission, forbidden); it doubles from there."""
    retry_longest: timedelta = timedelta(minutes=5)
    """Longest wait between two tries of what the API server refuses."""
    gang_backoff: timedelta = timedelta(seconds=30)
    """Wait before a group that was not scheduled in time is tried again; doubled each time, with jitter."""
    gang_backoff_longest: timedelta = timedelta(minutes=10)
    """Longest such wait."""
