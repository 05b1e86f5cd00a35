"""Whatever is asked and whatever is there: a TrainingCluster converges, and touches nothing of others."""

import copy
from typing import Any

from flightpath_operator.capabilities import Capabilities
from flightpath_operator.clusters.reconcile import reconcile
from flightpath_operator.plan import is_owned
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fakes.operator_specs import CLUSTER, live, schema_problems
from tests.fakes.plan_world import World, changes_nothing

Json = dict[str, Any]
STRANGER = [{"kind": "TrainingCluster", "name": "x", "uid": "somebody-else", "controller": True, "apiVersion": "v1"}]

_group = st.fixed_dictionaries(
    {"name": st.sampled_from(["gpu", "cpu"]), "max": st.integers(1, 5)},
    optional={"min": st.integers(0, 2), "gpusPerWorker": st.integers(0, 8), "nodeSelector": st.just({"a": "1"})},
)
_FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    "workerGroups": st.lists(_group, max_size=2),
    "image": st.sampled_from(["registry.test/ray:1", "registry.test/ray:2"]),
    "idleSeconds": st.integers(1, 100),
    "maxGpus": st.integers(0, 40),
    "suspend": st.booleans(),
    "queue": st.just("team-a"),
    "head": st.sampled_from([{}, {"resources": {"requests": {"cpu": "500m"}}}]),
    "env": st.just([{"name": "A", "value": "1"}]),
}
specs = st.fixed_dictionaries({}, optional=_FIELDS).map(lambda fields: CLUSTER | fields)
capabilities = st.builds(Capabilities, kuberay=st.booleans(), kueue=st.booleans())
_mended = ["remove", "edit", "scale", "groups", "suspend"]
damages = st.lists(st.sampled_from([*_mended, "steal", "end"]), max_size=3)
reports = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(["", "ready", "suspended", "failed"]),
        "readyWorkerReplicas": st.integers(0, 5),
        "conditions": st.just([{"type": "HeadPodReady", "status": "True"}]),
    },
)


def _damage(world: World, how: str) -> None:
    for child in list(world.children):
        groups = child["spec"].get("workerGroupSpecs") or []
        if how == "remove":
            world.children.remove(child)
        elif how == "steal":
            child["metadata"]["ownerReferences"] = copy.deepcopy(STRANGER)
        elif how == "edit":
            child["spec"]["headGroupSpec"] = {"surprise": 1}
        elif how == "groups":
            child["spec"]["workerGroupSpecs"] = groups[:-1]
        elif how == "suspend":
            child["spec"]["suspend"] = not child["spec"].get("suspend")
        elif how == "end":
            child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        for group in groups if how == "scale" else []:
            group["replicas"] = 99


def _world(before: Json, spec: Json, can: Capabilities, later: Capabilities, report: Json, damage: list[str]) -> World:
    """A cluster that was settled with one spec, then damaged, and has another one now."""
    world = World(live("TrainingCluster", before), now=1.8e9, capabilities=can)
    world.settle(reconcile)
    for child in world.children:
        child["status"] = report
    for how in damage:
        _damage(world, how)
    world.parent["spec"], world.capabilities = spec, later
    world.parent["metadata"]["generation"] = 2
    return world


worlds = st.builds(_world, specs, specs, capabilities, capabilities, reports, damages)

_kuberay = st.builds(Capabilities, kuberay=st.just(True), kueue=st.booleans())
accepted_worlds = st.builds(
    _world, specs, specs, _kuberay, _kuberay, reports, st.lists(st.sampled_from(_mended), max_size=3)
)
"""Most of them are accepted: KubeRay is there, and nobody else holds or ends what is the cluster's."""


@settings(deadline=None, max_examples=200)
@given(worlds)
def test_it_comes_to_rest_from_any_state(world: World) -> None:
    rest = world.settle(reconcile)
    assert changes_nothing(rest, world.parent)
    assert rest.notes == ()
    assert schema_problems(world.parent, "status") == []


@settings(deadline=None, max_examples=150)
@given(worlds)
def test_objects_of_others_stay_as_they_are(world: World) -> None:
    strangers = [copy.deepcopy(child) for child in world.children if not is_owned(child, world.parent)]
    plan = world.plan(reconcile)
    for target in [patch.target for patch in plan.patches] + [delete.target for delete in plan.deletes]:
        assert is_owned(target, world.parent)
    world.settle(reconcile)
    assert [child for child in world.children if not is_owned(child, world.parent)] == strangers


@settings(deadline=None, max_examples=100)
@given(accepted_worlds)
def test_workers_stay_between_their_bounds_whoever_set_them(world: World) -> None:
    world.settle(reconcile)
    assume(_accepted(world))
    for child in world.children:
        for group in child["spec"]["workerGroupSpecs"] if is_owned(child, world.parent) else []:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def _accepted(world: World) -> bool:
    """Accepted, not frozen until it is suspended, and not on its way out."""
    conditions = {condition["type"]: condition["status"] for condition in world.parent["status"]["conditions"]}
    going = any(child["metadata"].get("deletionTimestamp") for child in world.children)
    return conditions["Accepted"] == "True" and conditions.get("SpecChanged") != "True" and not going
