"""A small world for the TrainingJob reconciler: objects, nodes, kubelets, and an executor that may be killed.

Writes of a plan run side by side and the status comes last, as the operator's executor does it; `survivors` says
which of them got through before the kill.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flightpath_operator.capabilities import Capabilities
from flightpath_operator.conditions import find_condition
from flightpath_operator.plan import FINALIZER, OWNER_LABEL, Note, Object, Observed, Plan, is_owned
from flightpath_operator.training.reconcile import reconcile
from flightpath_operator.training.settings import TrainingSettings
from flightpath_operator.training.state import moment

START = 1_800_000_000.0
SPEC: Object = {"image": "registry.test/train:1", "workers": 2, "checkpoint": {"uri": "s3://runs/1"}}
SETTINGS = TrainingSettings(
    progress_url=lambda namespace, name: f"http://operator.test/v1/progress/{namespace}/{name}",
    progress_token=lambda uid, attempt: f"token-{uid}-{attempt}",
    verdict_wait=timedelta(0),
)
"""Failures are judged at the first look; `PATIENT` waits for the other workers' ends, as operators do."""
PATIENT = replace(SETTINGS, verdict_wait=timedelta(seconds=10))
_ALL = 10_000


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class World:
    """One TrainingJob called digits, and everything around it."""

    def __init__(self, settings: TrainingSettings = SETTINGS, **spec: Any) -> None:
        self.now = START
        self.settings = settings
        self.capabilities = Capabilities()
        self.parent: Object | None = {
            "apiVersion": "flightpath.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {
                "name": "digits",
                "namespace": "team",
                "uid": "uid-1",
                "generation": 1,
                "creationTimestamp": moment(START),
            },
            "spec": SPEC | spec,
        }
        self.children: dict[tuple[str, str], Object] = {}
        self.nodes: dict[str, Object] = {}
        self.progress: Object | None = None
        self.problems: tuple[str, ...] = ()
        self.refuses: Callable[[Object], str | None] = lambda child: None
        """What admission says to a creation; None lets it pass."""
        self.gates: list[Object] = []
        """Scheduling gates that a webhook puts on new pods."""
        self.notes: list[Note] = []
        self.metrics: list[tuple[str, Any, float]] = []
        self.plans: list[Plan] = []
        self._uids = 1
        for name in ("node-a", "node-b", "node-c", "node-d"):
            self.add_node(name)

    # what can be asked

    @property
    def status(self) -> Object:
        assert self.parent is not None
        found: Object = self.parent.get("status") or {}
        return found

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    def condition(self, kind: str) -> tuple[str, str, str] | None:
        found = find_condition(self.status.get("conditions") or [], kind)
        return (found["status"], found["reason"], found["message"]) if found else None

    @property
    def pods(self) -> dict[str, Object]:
        """The job's own pods by name."""
        return {
            name: child
            for (kind, name), child in sorted(self.children.items())
            if kind == "Pod" and self.parent is not None and is_owned(child, self.parent)
        }

    def pod(self, rank: int, attempt: int | None = None) -> Object:
        return self.children["Pod", f"digits-a{attempt or self.status['attempt']}-w{rank}"]

    def counted(self, name: str) -> float:
        return sum(amount for metric, _, amount in self.metrics if metric == name)

    def told(self) -> list[str]:
        return [note.reason for note in self.notes]

    # what the operator does

    def observe(self) -> Observed:
        watched = (child for child in self.children.values() if OWNER_LABEL in child["metadata"].get("labels", {}))
        return Observed(
            children=tuple(copy.deepcopy(child) for child in watched),
            nodes=copy.deepcopy(self.nodes),
            progress=self.progress,
            capabilities=self.capabilities,
            problems=self.problems,
        )

    def plan(self) -> Plan:
        assert self.parent is not None
        return reconcile(copy.deepcopy(self.parent), self.observe(), self.now, self.settings)

    def step(self) -> Plan:
        """One look, carried out."""
        plan = self.plan()
        self.apply(plan)
        return plan

    def settle(self, limit: int = 30) -> Plan:
        """Looks until nothing changes any more; the clock stands still."""
        for _ in range(limit):
            before = copy.deepcopy((self.parent, self.children, self.problems))
            plan = self.step()
            if (self.parent, self.children, self.problems) == before:
                return plan
        raise AssertionError(f"not settled after {limit} looks: {plan}")

    def apply(self, plan: Plan, survivors: Callable[[int], bool] = lambda index: True, *, status: bool = True) -> None:
        """Carries the plan out. `survivors`: which of the writes made side by side get through before a kill;
        `status` False: the kill comes before the status is written."""
        self.plans.append(plan)
        writes: list[Callable[[], str | None]] = [
            *((lambda child=child: self._create(child)) for child in plan.creates),
            *((lambda patch=patch: self._patch(patch)) for patch in plan.patches),
            *((lambda delete=delete: self._delete(delete)) for delete in plan.deletes),
        ]
        if plan.finalizer:
            writes.append(lambda: self._set_finalizer(True))
        done = [survivors(index) for index in range(len(writes))]
        problems = [problem for write, alive in zip(writes, done, strict=True) if alive and (problem := write())]
        if not all(done) or problems:
            # A new process remembers nothing.
            self.problems = tuple(sorted(set(problems))) if all(done) else ()
        elif plan.creates or plan.patches or plan.deletes:
            self.problems = ()
        if all(done) and status:
            self._write_parent(plan)

    def _write_parent(self, plan: Plan) -> None:
        assert self.parent is not None
        self.notes.extend(plan.notes)
        self.metrics.extend(plan.metrics)
        if plan.status is not None:
            self.parent["status"] = copy.deepcopy(plan.status)
        if plan.finalizer is False:
            self._set_finalizer(False)
        if plan.delete_parent:
            self.delete_job()
        self._collect()

    def _create(self, child: Object) -> str | None:
        key = child["kind"], child["metadata"]["name"]
        if (refused := self.refuses(child)) is not None:
            return f"cannot create {key[0]} {key[1]}: {refused}"
        found = self.children.get(key)
        if found is not None:
            assert self.parent is not None
            return None if is_owned(found, self.parent) else f"{key[0]} {key[1]} exists and is not of this TrainingJob"
        self._uids += 1
        created = copy.deepcopy(child)
        created["metadata"]["uid"] = f"uid-{self._uids}"
        if key[0] == "Pod":
            created["status"] = {"phase": "Pending"}
            if self.gates:
                created["spec"]["schedulingGates"] = self.gates
        self.children[key] = created
        return None

    def _patch(self, patch: Any) -> None:
        key = patch.target["kind"], patch.target["metadata"]["name"]
        if key in self.children:
            self.children[key] = merge(self.children[key], patch.body)

    def _delete(self, delete: Any) -> None:
        key = delete.target["kind"], delete.target["metadata"]["name"]
        found = self.children.get(key)
        if found is not None and found["metadata"]["uid"] == delete.target["metadata"]["uid"]:
            self.delete_child(key, delete.grace_s)

    def delete_child(self, key: tuple[str, str], grace_s: int | None = None) -> None:
        """A deletion as the API server takes it: a pod on a node ends first."""
        child = self.children[key]
        placed = child.get("spec", {}).get("nodeName") and child.get("status", {}).get("phase") in (
            "Running",
            "Pending",
        )
        if key[0] != "Pod" or not placed or grace_s == 0:
            del self.children[key]
        elif "deletionTimestamp" not in child["metadata"]:
            grace = child["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
            child["metadata"]["deletionTimestamp"] = moment(self.now + grace)
            child["metadata"]["deletionGracePeriodSeconds"] = grace

    def _set_finalizer(self, wanted: bool) -> None:
        assert self.parent is not None
        names = [name for name in self.parent["metadata"].get("finalizers", []) if name != FINALIZER]
        self.parent["metadata"]["finalizers"] = [*names, FINALIZER] if wanted else names

    def _collect(self) -> None:
        """Garbage collection: a deleted job without finalizers goes, and its children with it."""
        assert self.parent is not None
        metadata = self.parent["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            uid_owner = self.parent
            self.parent = None
            self.children = {key: child for key, child in self.children.items() if not is_owned(child, uid_owner)}

    # what others do

    def add_node(self, name: str, labels: Object | None = None, **allocatable: str) -> None:
        self.nodes[name] = {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})},
            "status": {
                "allocatable": {"cpu": "8", "nvidia.com/gpu": "8"} | allocatable,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": moment(START)}],
            },
        }

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def edit(self, **spec: Any) -> None:
        """A new spec; None takes a field away."""
        assert self.parent is not None
        self.parent["spec"] = merge(self.parent["spec"], spec)
        self.parent["metadata"]["generation"] += 1

    def delete_job(self) -> None:
        assert self.parent is not None
        if "deletionTimestamp" not in self.parent["metadata"]:
            self.parent["metadata"]["deletionTimestamp"] = moment(self.now)
            self.parent["metadata"]["generation"] += 1
        self._collect()

    def add_stranger(self, kind: str, name: str, owner: str | None = None, *, labelled: bool = True) -> None:
        """Somebody else's object under a name that the job would use; without the label no watch shows it."""
        references = [{"kind": "TrainingJob", "name": "digits", "uid": owner, "controller": True}] if owner else []
        self.children[kind, name] = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": f"stranger-{name}",
                "labels": {OWNER_LABEL: "tj.digits"} if labelled else {},
                "ownerReferences": references,
            },
            "spec": {},
            "status": {},
        }

    def schedule(self, *ranks: int, node: str | None = None) -> None:
        names = sorted(self.nodes)
        for rank in ranks or self._ranks():
            self.pod(rank)["spec"]["nodeName"] = node or names[rank % len(names)]

    def run(self, *ranks: int) -> None:
        """Scheduled and started, unless that is past."""
        for rank in ranks or self._ranks():
            pod = self.pod(rank)
            if pod["status"].get("phase") == "Pending":
                if not pod["spec"].get("nodeName"):
                    self.schedule(rank)
                pod["status"] = {"phase": "Running", "containerStatuses": [_container({"running": {}})]}

    def exit(self, rank: int, code: int = 0, *, reason: str = "", message: str = "", at: float | None = None) -> None:
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": moment(at or self.now)}
        self.pod(rank)["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [_container({"terminated": ended})],
        }

    def wait_on(self, rank: int, reason: str, message: str = "") -> None:
        state = {"waiting": {"reason": reason, "message": message}}
        self.pod(rank)["status"] = {"phase": "Pending", "containerStatuses": [_container(state)]}

    def evict(self, rank: int) -> None:
        self.pod(rank)["status"] = {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}

    def end_deleted(self) -> None:
        """Kubelets confirm that what was deleted has ended."""
        for key in [key for key, child in self.children.items() if "deletionTimestamp" in child["metadata"]]:
            del self.children[key]

    def report(self, step: int, **fields: Any) -> None:
        """A progress object that the operator receives now."""
        self.progress = {"step": step, "total_steps": 1000, "received_at": self.now, "time": self.now, **fields}

    def break_gpu(self, node: str) -> None:
        fault = {"type": "XidError", "status": "True", "reason": "Xid79"}
        self.nodes[node]["status"]["conditions"].append(fault)

    def silence_node(self, node: str) -> None:
        ready = self.nodes[node]["status"]["conditions"][0]
        ready.update(status="Unknown", lastTransitionTime=moment(self.now))

    def started(self) -> "World":
        """A job whose first attempt runs."""
        self.settle()
        self.run()
        self.settle()
        return self

    def settle_deletion(self, limit: int = 10) -> None:
        """Looks until the deleted job is gone."""
        for _ in range(limit):
            if self.parent is None:
                return
            self.step()
            self.end_deleted()
        raise AssertionError(f"not gone after {limit} looks")

    def next_attempt(self, backoff: float = _ALL) -> "World":
        """Old pods end, the backoff passes, the new pods run."""
        self.settle()
        self.end_deleted()
        self.settle()
        assert self.plan().again_in is not None
        while not self.pods:
            again = self.plan().again_in
            assert again is not None
            self.pass_time(min(again, timedelta(seconds=backoff)).total_seconds())
            self.settle()
        self.run()
        self.settle()
        return self

    def _ranks(self) -> list[int]:
        attempt = self.status.get("attempt")
        prefix = f"digits-a{attempt}-w"
        return [int(name.removeprefix(prefix)) for name in self.pods if name.startswith(prefix)]


def _container(state: Object) -> Object:
    return {"name": "worker", "state": state}
