"""How many workers, and which ranks: the arithmetic of groups that shrink and grow.

An elastic group changes in place, its remaining workers stay: torchrun forms anew. That holds within the bounds that
its agents were told; anything else, and a group that Kueue admitted as one, begins a new attempt.
"""

from collections.abc import Iterable
from itertools import count, islice

from flightpath_operator.training.job import Job
from flightpath_operator.training.state import Group


def next_size(job: Job) -> tuple[int, float | None]:
    """Workers of an attempt that begins, and when it may ask for more."""
    live, group = job.live, job.group
    reduced = group.grow_after is not None and group.grow_after > job.now
    if live.elastic and reduced and live.min_workers <= group.size < live.max_workers:
        return group.size, group.grow_after
    return live.max_workers, None


def target_size(job: Job) -> int | None:
    """The number of workers that the group should change to; None while it is right."""
    live, group = job.live, job.group
    if group.desired > live.max_workers or group.desired < live.min_workers:
        return live.max_workers
    may_grow = group.grow_after is None or job.now >= group.grow_after
    return live.max_workers if group.desired < live.max_workers and may_grow else None


def is_urgent(job: Job) -> bool:
    """Whether the present number is outside of what the spec allows."""
    return not job.live.min_workers <= job.group.desired <= job.live.max_workers


def in_place(job: Job, size: int) -> bool:
    """Whether the other workers can stay."""
    group = job.group
    return group.elastic and job.live.elastic and not job.kueue and group.lowest <= size <= group.highest


def resized(job: Job, size: int) -> Group:
    """The group with another number of workers: the highest ranks go, the lowest free ones come."""
    wanted = job.group.wanted
    if size <= len(wanted):
        return with_ranks(job.group, wanted[:size])
    taken = frozenset(wanted)
    free = (rank for rank in count() if rank not in taken)
    grown = with_ranks(job.group, (*wanted, *islice(free, size - len(wanted))))
    return grown.model_copy(update={"since": job.now, "grow_after": None})


def without_unplaced(job: Job) -> Group:
    """The group without the workers that found no node; it asks for more again later."""
    placed = (rank for rank, worker in job.workers.items() if worker.scheduled)
    grow_after = job.now + job.settings.grow_interval.total_seconds()
    return with_ranks(job.group, placed).model_copy(update={"grow_after": grow_after})


def with_ranks(group: Group, ranks: Iterable[int]) -> Group:
    """The group with exactly these ranks; the new ones among them are still to be created."""
    wanted = frozenset(ranks)
    size = max(wanted) + 1
    first_new = min(wanted - frozenset(group.wanted), default=size)
    return group.model_copy(
        update={
            "size": size,
            "absent": tuple(rank for rank in range(size) if rank not in wanted),
            "formed": min(group.formed, first_new, size),
        }
    )
