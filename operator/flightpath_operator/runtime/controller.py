"""Joins caches, queue, reconcilers and executor: an event wakes a key, a look plans from the caches and writes.

Level-triggered: whatever was missed while the operator was away shows in the caches at the next start.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Protocol

from flightpath_operator.names import owner_value
from flightpath_operator.plan import MANAGER, Object, Observed, Plan
from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.discovery import Discovered
from flightpath_operator.runtime.errors import ApiError, NotFound
from flightpath_operator.runtime.events import EventRecorder
from flightpath_operator.runtime.executor import Executor
from flightpath_operator.runtime.metrics import OperatorMetrics
from flightpath_operator.runtime.queue import Key, Queue
from flightpath_operator.runtime.reflector import Reflector, WatchSettings
from flightpath_operator.runtime.resources import NODE, PARENTS, POD, Resource

logger = logging.getLogger(__name__)
_CONFLICT_PAUSE: Final = timedelta(milliseconds=20)
_TELL_PAUSE: Final = timedelta(milliseconds=50)
_TELL_PAUSE_PER_KEY: Final = timedelta(milliseconds=5)
_PROGRESS_PAUSE_S: Final = 1.0
_ROUNDS: Final = 8
"""Looks in a row that write, after which an object counts as one that does not settle."""
_LONGEST_PAUSE_S: Final = 60.0
_NODE_FIELDS: Final = ("unschedulable", "taints")


class Reconcile(Protocol):
    """One kind's pure reconciler, its settings bound."""

    def __call__(self, parent: Object, observed: Observed, now: float) -> Plan: ...


class Controller:
    """All kinds of one cluster. `run` until it is cancelled; feed parents to `take`."""

    def __init__(
        self,
        client: Client,
        discovered: Discovered,
        reconcilers: Mapping[str, Reconcile],
        *,
        watch: WatchSettings,
        may_cordon: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._capabilities = discovered.capabilities
        self._reconcilers = reconcilers
        self._clock = clock
        self._caches: dict[Resource, Cache] = {resource: Cache() for resource in (*PARENTS, *discovered.children, NODE)}
        self.parents = {resource.kind: self._caches[resource] for resource in PARENTS}
        self._children = [self._caches[resource] for resource in discovered.children]
        self._nodes: dict[str, Object] = {}
        self._progress: dict[Key, Mapping[str, Any]] = {}
        self._problems: dict[Key, tuple[str, ...]] = {}
        self._rounds: dict[Key, int] = {}
        self._postponed: set[Key] = set()
        """Whose last look left the status to the next one."""
        self.queue = Queue(self._look)
        self.metrics = OperatorMetrics(depth=lambda: self.queue.depth, parents=self.parents)
        self._executor = Executor(client, self._caches.get, may_cordon=may_cordon)
        self._events = EventRecorder(client)
        managed = f"app.kubernetes.io/managed-by={MANAGER}"
        self.reflectors = [
            Reflector(
                client,
                resource,
                self._caches[resource],
                selector="" if resource is NODE else managed,
                on_change=self._node_changed if resource is NODE else self._child_changed,
                settings=watch,
            )
            for resource in (*discovered.children, NODE)
        ]
        self.synced = asyncio.Event()
        """Set once every child kind has been listed: before that a look would see children missing."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(reflector.run(), name=f"watch of {reflector.resource.plural}")
            await asyncio.gather(*(reflector.ready.wait() for reflector in self.reflectors))
            self.synced.set()
            logger.info("caches are filled: %d children", sum(len(cache) for cache in self._children))

    def unready(self) -> str:
        """Which kinds have not been listed yet; empty once all are."""
        waiting = [reflector.resource.plural for reflector in self.reflectors if not reflector.ready.is_set()]
        return f"filling the caches: {', '.join(waiting)}" if waiting else ""

    async def close(self) -> None:
        await self.queue.close()
        await self._events.close()

    # What wakes a key

    def take(self, resource: Resource, event_type: str | None, obj: Object) -> None:
        """An event of a parent; `event_type` None for one of the first list."""
        obj["metadata"].pop("managedFields", None)
        cache, key = self._caches[resource], _key(obj, resource.kind)
        if event_type == "DELETED":
            if cache.drop(obj):
                self._forget(key)
        elif cache.put(obj):
            self.queue.wake(key)

    def _forget(self, key: Key) -> None:
        self.queue.forget(key)
        self._progress.pop(key, None)
        self._problems.pop(key, None)
        self._rounds.pop(key, None)
        self._postponed.discard(key)

    def _child_changed(self, child: Object) -> None:
        for reference in child["metadata"].get("ownerReferences") or []:
            if reference.get("controller") and reference["kind"] in self.parents:
                self.queue.wake(Key(reference["kind"], child["metadata"]["namespace"], reference["name"]))

    def _node_changed(self, node: Object) -> None:
        """Wake the jobs that have workers on a node whose health has changed; heartbeats are no news."""
        name, cache = node["metadata"]["name"], self._caches[NODE]
        before, now = self._nodes.get(name), cache.get("", name)
        if now is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = now
        if before is None or now is None or _health(before) != _health(now):
            for pod in self._pods():
                if (pod.get("spec") or {}).get("nodeName") == name:
                    self._child_changed(pod)

    def _pods(self) -> list[Object]:
        return list(self._caches[POD].all())

    def report(self, namespace: str, name: str, progress: Mapping[str, Any]) -> None:
        """A worker's report; a new checkpoint is looked at at once, steps within a second."""
        key = Key("TrainingJob", namespace, name)
        before = self._progress.get(key)
        self._progress[key] = progress
        if before is None or before["checkpoint_step"] != progress["checkpoint_step"]:
            self.queue.wake(key)
        else:
            self.queue.wake_within(key, _PROGRESS_PAUSE_S)

    def job(self, namespace: str, name: str) -> Object | None:
        return self.parents["TrainingJob"].get(namespace, name)

    # One look

    async def _look(self, key: Key) -> timedelta | None:
        await self.synced.wait()
        parent = self.parents[key.kind].get(key.namespace, key.name)
        if parent is None:
            self._forget(key)
            return None
        try:
            return await self._reconcile(key, parent)
        except ApiError as failure:
            self.metrics.failures.labels(kind=key.kind, reason=failure.reason or str(failure.status)).inc()
            raise
        except Exception:
            self.metrics.failures.labels(kind=key.kind, reason="Bug").inc()
            raise

    async def _reconcile(self, key: Key, parent: Object) -> timedelta | None:
        seconds, began = self.metrics.reconcile_seconds, time.perf_counter()
        plan = self._reconcilers[key.kind](parent, self._observe(key, parent), self._clock())
        decided = time.perf_counter()
        seconds.labels(kind=key.kind, phase="decide").observe(decided - began)
        try:
            # Never twice in a row: children that vanish as soon as they are made must show in the status.
            may_postpone = key not in self._postponed
            outcome = await self._executor.carry_out(parent, plan, may_postpone=may_postpone)
        except NotFound:
            # The parent went while its plan was carried out; its deletion is on the way.
            return _CONFLICT_PAUSE
        if outcome.writes:
            seconds.labels(kind=key.kind, phase="write").observe(time.perf_counter() - decided)
            self.metrics.writes.labels(kind=key.kind).inc(outcome.writes)
        self._postponed.discard(key)
        if outcome.conflict:
            # Nothing is told of a plan whose status was not taken: it is made anew.
            return _CONFLICT_PAUSE
        if outcome.postponed:
            self._postponed.add(key)
            # The new children's own events mostly come first; and in a burst, making goes before telling.
            return max(_TELL_PAUSE, _TELL_PAUSE_PER_KEY * self.queue.depth)
        for note in plan.notes:
            self._events.record(parent, note)
        for name, labels, amount in plan.metrics:
            self.metrics.count(name, labels, amount)
        self._note_problems(key, plan, outcome.problems)
        if outcome.writes:
            # Own writes wake nobody, since they are in the cache already: what they allow comes next.
            return self._pause(key)
        self._rounds.pop(key, None)
        return plan.again_in

    def _note_problems(self, key: Key, plan: Plan, problems: tuple[str, ...]) -> None:
        """The next plan tells of them; they are over once such writes were taken."""
        if problems:
            self._problems[key] = problems
        elif plan.creates or plan.patches or plan.deletes:
            self._problems.pop(key, None)

    def _pause(self, key: Key) -> timedelta:
        """None between the few looks in which a change settles; growing ones for an object that never does."""
        rounds = self._rounds[key] = self._rounds.get(key, 0) + 1
        if rounds <= _ROUNDS:
            return timedelta(0)
        if rounds == _ROUNDS + 1:
            logger.warning("%s does not settle: every look writes", key)
        return timedelta(seconds=min(_LONGEST_PAUSE_S, 2.0 ** min(rounds - _ROUNDS, 16)))

    def _observe(self, key: Key, parent: Object) -> Observed:
        owner = owner_value(parent)
        children = [child for cache in self._children for child in cache.owned_by(key.namespace, owner)]
        return Observed(
            children=tuple(children),
            nodes=self._nodes,
            progress=self._progress.get(key),
            capabilities=self._capabilities,
            problems=self._problems.get(key, ()),
        )


def _key(obj: Object, kind: str) -> Key:
    return Key(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


def _health(node: Object) -> Any:
    """What about a node decides over its workers."""
    conditions = {c["type"]: c["status"] for c in (node.get("status") or {}).get("conditions") or []}
    marks = {k: v for k, v in (node["metadata"].get("annotations") or {}).items() if k.startswith("flightpath.dev/")}
    return conditions, node["metadata"].get("labels"), marks, [node.get("spec", {}).get(f) for f in _NODE_FIELDS]
