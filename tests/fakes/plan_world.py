"""The least of a cluster that plans can be carried out on: objects get uids, versions, generations and defaults.

No time passes and no controller acts, so that a test sees what one plan does and nothing else.
"""

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from flightpath_operator.capabilities import Capabilities
from flightpath_operator.plan import Observed, Plan

from tests.fakes.kubernetes.defaults import fill_in
from tests.fakes.kubernetes.patches import merge

Json = dict[str, Any]
Reconcile = Callable[[Json, Observed, float], Plan]

_BUCKETS = {
    "Service": "services",
    "Deployment": "deployments.apps",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers.autoscaling",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}


class World:
    """One parent and what is around it."""

    def __init__(self, parent: Json, *, now: float, capabilities: Capabilities, present: Iterable[Json] = ()) -> None:
        self.parent = copy.deepcopy(parent)
        self.now = now
        self.capabilities = capabilities
        self.problems: tuple[str, ...] = ()
        self._versions = itertools.count(1000)
        self.children: list[Json] = []
        for child in present:
            self.add(child)

    def add(self, child: Json) -> Json:
        stored = copy.deepcopy(child)
        version = next(self._versions)
        stored["metadata"] = {"uid": f"uid-{version}", "generation": 1} | stored["metadata"]
        stored["metadata"]["resourceVersion"] = str(version)
        fill_in(_BUCKETS.get(stored["kind"], ""), stored)
        self.children.append(stored)
        return stored

    def find(self, kind: str, name: str | None = None) -> Json:
        [found] = [c for c in self.children if c["kind"] == kind and name in (None, c["metadata"]["name"])]
        return found

    def kinds(self) -> list[str]:
        return sorted(child["kind"] for child in self.children)

    def observe(self) -> Observed:
        return Observed(
            children=tuple(copy.deepcopy(self.children)), capabilities=self.capabilities, problems=self.problems
        )

    def plan(self, reconcile: Reconcile) -> Plan:
        return reconcile(copy.deepcopy(self.parent), self.observe(), self.now)

    def carry_out(self, plan: Plan) -> None:
        """LookupError for a delete or patch of what is not there, AssertionError for a create of what is."""
        for child in plan.creates:
            assert not self._same_name(child), f"{child['kind']} {child['metadata']['name']} exists"
            self.add(child)
        for patch in plan.patches:
            stored = self._by_uid(patch.target)
            before = copy.deepcopy(stored.get("spec"))
            merge(stored, copy.deepcopy(patch.body))
            fill_in(_BUCKETS.get(stored["kind"], ""), stored)
            stored["metadata"]["resourceVersion"] = str(next(self._versions))
            stored["metadata"]["generation"] += stored.get("spec") != before
        for delete in plan.deletes:
            self.children.remove(self._by_uid(delete.target))
        if plan.status is not None:
            self.parent["status"] = copy.deepcopy(plan.status)

    def settle(self, reconcile: Reconcile, *, rounds: int = 4) -> Plan:
        """Reconciles until nothing changes; AssertionError when it does not come to rest."""
        for _ in range(rounds):
            plan = self.plan(reconcile)
            if changes_nothing(plan, self.parent):
                return plan
            self.carry_out(plan)
        raise AssertionError(f"still changing after {rounds} rounds: {plan}")

    def _same_name(self, child: Json) -> list[Json]:
        identity = (child["kind"], child["metadata"]["name"])
        return [c for c in self.children if (c["kind"], c["metadata"]["name"]) == identity]

    def _by_uid(self, target: Json) -> Json:
        uid = target["metadata"]["uid"]
        found = next((child for child in self.children if child["metadata"]["uid"] == uid), None)
        if found is None:
            raise LookupError(f"no object has uid {uid}")
        return found


def changes_nothing(plan: Plan, parent: Json) -> bool:
    """Whether carrying the plan out costs no request."""
    writes = (plan.creates, plan.patches, plan.deletes, plan.delete_parent, plan.patch_parent, plan.cordon)
    return not any(writes) and plan.status in (None, parent.get("status"))
