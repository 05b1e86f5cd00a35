"""Whatever is asked and whatever is there: a ModelDeployment converges, and touches nothing of others."""

import copy
from typing import Any

from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.reconcile import reconcile
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import Observed, Plan, is_owned
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.operator_specs import MODEL, live, schema_problems
from tests.fakes.plan_world import World, changes_nothing

Json = dict[str, Any]
NOW = 1_800_000_000.0
SETTINGS = DeploymentSettings(flightpath_image="registry.test/flightpath:1", prometheus_url="http://prometheus:9090")
STRANGER = [{"kind": "Deployment", "name": "x", "uid": "somebody-else", "controller": True, "apiVersion": "v1"}]


def _reconcile(parent: Json, observed: Observed, now: float) -> Plan:
    return reconcile(parent, observed, now, SETTINGS)


_AUTOSCALING = st.fixed_dictionaries(
    {"min": st.integers(0, 2), "max": st.integers(2, 9), "target": st.sampled_from([1, 70, 1000])},
    optional={"metric": st.sampled_from(["cpu", "memory", "vllm:num_requests_waiting"])},
)
_FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    "replicas": st.integers(-1, 5),
    "autoscaling": _AUTOSCALING,
    "gpus": st.integers(0, 3),
    "port": st.sampled_from([8000, 9000]),
    "drainSeconds": st.integers(0, 60),
    "kserve": st.booleans(),
    "networkPolicy": st.sampled_from([{}, {"allowFromNamespaces": ["a", "b"]}]),
    "nodeSelector": st.sampled_from([{"a": "1"}, {"b": "1"}]),
    "resources": st.sampled_from([{"limits": {"cpu": "1000m"}}, {"requests": {"memory": "1Gi"}}]),
    "priorityClassName": st.just("serving"),
    "runtime": st.sampled_from(["vllm", "onnxruntime", "tensorrt", "triton"]).map(
        lambda engine: MODEL["runtime"] | {"engine": engine}
    ),
}
specs = st.fixed_dictionaries({}, optional=_FIELDS).map(lambda fields: MODEL | fields)
capabilities = st.builds(
    Capabilities, minor=st.sampled_from([20, 22, 25, 32]), kserve=st.booleans(), keda=st.booleans()
)
counts = st.fixed_dictionaries(
    {},
    optional={
        name: st.integers(0, 4) for name in ("replicas", "updatedReplicas", "readyReplicas", "observedGeneration")
    },
)
damages = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["remove", "steal", "edit", "empty", "scale", "end", "label"])),
    max_size=4,
)


def _damage(world: World, number: int, how: str) -> None:
    """One thing that users, other controllers or a restored backup do to a child."""
    if not world.children:
        return
    child = world.children[number % len(world.children)]
    if how == "remove":
        world.children.remove(child)
    elif how == "steal":
        child["metadata"]["ownerReferences"] = copy.deepcopy(STRANGER)
    elif how == "edit":
        child["spec"] = {"surprise": {"deep": 1}, "replicas": 3}
    elif how == "empty":
        child["spec"] = {}
        child["metadata"]["annotations"] = None
    elif how == "scale":
        child["spec"]["replicas"] = number
    elif how == "end":
        child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    else:
        child["metadata"]["labels"] = {}


def _world(before: Json, spec: Json, can: Capabilities, status: Json, damage: list[tuple[int, str]]) -> World:
    """A deployment that was settled with one spec, then damaged, and has another one now."""
    world = World(live("ModelDeployment", before), now=NOW, capabilities=can)
    world.settle(_reconcile)
    for child in world.children:
        if child["kind"] == "Deployment":
            child["status"] = status
    for number, how in damage:
        _damage(world, number, how)
    world.parent["spec"] = spec
    world.parent["metadata"]["generation"] = 2
    return world


worlds = st.builds(_world, specs, specs, capabilities, counts, damages)


@settings(deadline=None, max_examples=150)
@given(worlds)
def test_it_comes_to_rest_from_any_state(world: World) -> None:
    rest = world.settle(_reconcile)
    assert changes_nothing(rest, world.parent)
    assert rest.notes == ()
    assert schema_problems(world.parent, "status") == []


@settings(deadline=None, max_examples=150)
@given(worlds)
def test_objects_of_others_stay_as_they_are(world: World) -> None:
    strangers = [copy.deepcopy(child) for child in world.children if not is_owned(child, world.parent)]
    plan = world.plan(_reconcile)
    for target in [patch.target for patch in plan.patches] + [delete.target for delete in plan.deletes]:
        assert is_owned(target, world.parent)
    world.settle(_reconcile)
    assert [child for child in world.children if not is_owned(child, world.parent)] == strangers


@settings(deadline=None, max_examples=100)
@given(worlds)
def test_the_same_objects_give_the_same_plan_and_are_not_changed(world: World) -> None:
    parent, observed = copy.deepcopy(world.parent), world.observe()
    untouched = copy.deepcopy((parent, observed.children))
    first = reconcile(parent, observed, NOW, SETTINGS)
    assert reconcile(parent, observed, NOW, SETTINGS) == first
    assert (parent, observed.children) == untouched
