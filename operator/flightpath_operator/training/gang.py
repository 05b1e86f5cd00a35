"""All workers or none: a group that holds half of its nodes blocks others and trains nothing.

Kueue admits the pods of an attempt together; a PodGroup makes the coscheduling plugin place them together.
With neither, what was placed in vain is released after the startup deadline, and tried again after a backoff
whose jitter keeps two half-placed jobs from meeting again.
"""

import hashlib
from typing import Final

from flightpath_operator.names import attempt_name
from flightpath_operator.plan import Object
from flightpath_operator.training.job import Job

KUEUE: Final = "kueue.x-k8s.io"
SCHEDULING: Final = "scheduling.x-k8s.io"
_JITTER: Final = 0.5


def uses_pod_group(job: Job) -> bool:
    """Whether the coscheduling plugin places the workers; Kueue, where it admits them, does it by itself."""
    return job.observed.capabilities.pod_group and not job.kueue and job.spec.max_workers > 1


def gang_labels(job: Job) -> dict[str, str]:
    """Labels that bind a worker's pod to its gang."""
    name = attempt_name(job.name, job.state.attempt)
    if job.kueue:
        return {f"{KUEUE}/queue-name": str(job.spec.queue), f"{KUEUE}/pod-group-name": name}
    return {f"{SCHEDULING}/pod-group": name} if uses_pod_group(job) else {}


def gang_annotations(job: Job) -> dict[str, str]:
    if not job.kueue:
        return {}
    return {
        f"{KUEUE}/pod-group-total-count": str(job.group.desired),
        # A failed worker is not replaced in its group: the next attempt is a group of its own.
        f"{KUEUE}/retriable-in-group": "false",
    }


def pod_group(job: Job) -> Object | None:
    """The PodGroup of this attempt."""
    if not uses_pod_group(job):
        return None
    group = job.group
    return {
        "apiVersion": f"{SCHEDULING}/v1alpha1",
        "kind": "PodGroup",
        "metadata": {"name": attempt_name(job.name, job.state.attempt)},
        "spec": {
            "minMember": group.lowest if group.elastic else group.desired,
            "scheduleTimeoutSeconds": job.spec.startup_deadline_seconds,
        },
    }


def release_backoff(job: Job) -> float:
    """Seconds until a group that was released is tried again."""
    first = job.settings.gang_backoff.total_seconds()
    longest = job.settings.gang_backoff_longest.total_seconds()
    base = min(first * float(2 ** min(job.state.counters.gang, 30)), longest)
    digest = hashlib.sha256(f"{job.uid}:{job.state.attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return base * (1 - _JITTER + 2 * _JITTER * share)
