"""Comparing wanted children with observed ones: nothing of others is touched, and no change makes a request."""

from typing import Any

import pytest
from flightpath_operator.ownership import Changes, apply_children, complete_child, contains, merge_patch, spec_hash
from flightpath_operator.plan import HASH_ANNOTATION, OWNER_LABEL, is_owned
from flightpath_operator.quantities import parse_quantity, same_quantity
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.kubernetes.patches import merge
from tests.fakes.operator_specs import MODEL, live

Json = dict[str, Any]
PARENT = live("ModelDeployment", MODEL)
OTHER = live("ModelDeployment", MODEL, uid="another-life")


def _config(name: str = "settings", **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _stored(child: Json, parent: Json = PARENT) -> Json:
    complete = complete_child(parent, child)
    return complete | {"metadata": complete["metadata"] | {"uid": f"uid-{child['metadata']['name']}"}}


def test_what_is_missing_is_created_complete() -> None:
    [child] = apply_children(PARENT, [_config(a="1")], []).creates
    assert child["metadata"]["namespace"] == "team"
    assert child["metadata"]["labels"][OWNER_LABEL] == "md.digits"
    assert child["metadata"]["annotations"][HASH_ANNOTATION] == spec_hash(_config(a="1"))
    assert is_owned(child, PARENT)


def test_what_is_as_wanted_is_left_alone() -> None:
    assert apply_children(PARENT, [_config(a="1")], [_stored(_config(a="1"))]) == Changes()


def test_a_new_spec_is_patched_and_old_keys_go() -> None:
    old = _stored(_config(a="1", b="2"))
    [patch] = apply_children(PARENT, [_config(a="9")], [old]).patches
    assert patch.body["data"] == {"a": "9", "b": None}
    merged = merge(dict(old), patch.body)
    assert apply_children(PARENT, [_config(a="9")], [merged]) == Changes()


def test_an_edit_by_hand_is_set_back() -> None:
    edited = _stored(_config(a="1"))
    edited["data"] = {"a": "2"}
    [patch] = apply_children(PARENT, [_config(a="1")], [edited]).patches
    assert patch.body["data"] == {"a": "1"}


def test_a_label_that_was_taken_off_comes_back() -> None:
    edited = _stored(_config())
    del edited["metadata"]["labels"][OWNER_LABEL]
    [patch] = apply_children(PARENT, [_config()], [edited]).patches
    assert patch.body["metadata"]["labels"][OWNER_LABEL] == "md.digits"


def test_what_others_add_stays() -> None:
    seen = _stored(_config(a="1"))
    seen["metadata"]["labels"]["team"] = "vision"
    seen["metadata"]["annotations"]["note"] = "x"
    seen["immutable"] = False
    assert apply_children(PARENT, [_config(a="1")], [seen]) == Changes()


def test_what_is_wanted_no_more_is_deleted() -> None:
    stale = _stored(_config("stale"))
    [delete] = apply_children(PARENT, [], [stale]).deletes
    assert delete.target == stale


@pytest.mark.parametrize("wanted", [[_config(a="2")], []])
def test_what_is_just_being_deleted_is_waited_for(wanted: list[Json]) -> None:
    going = _stored(_config(a="1"))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert apply_children(PARENT, wanted, [going]) == Changes()


def test_a_namesake_of_another_owner_is_told_and_left_alone() -> None:
    changes = apply_children(PARENT, [_config(a="1")], [_stored(_config(a="2"), OTHER)])
    assert changes == Changes(problems=changes.problems)
    assert changes.problems == (
        "ConfigMap settings exists and belongs to ModelDeployment digits: delete it or take another name",
    )


def test_a_namesake_without_an_owner_is_not_adopted() -> None:
    stranger = _config(a="2") | {"metadata": {"name": "settings", "uid": "x"}}
    changes = apply_children(PARENT, [_config(a="1")], [stranger])
    assert (changes.creates, changes.patches, changes.deletes) == ((), (), ())
    assert "has no owner" in changes.problems[0]


def test_an_owner_that_is_no_controller_does_not_count() -> None:
    child = _stored(_config(a="1"))
    child["metadata"]["ownerReferences"][0]["controller"] = False
    assert apply_children(PARENT, [], [child]) == Changes()


def test_kinds_of_one_name_are_told_apart() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "settings"}, "spec": {}}
    changes = apply_children(PARENT, [service], [_stored(_config("settings"))])
    assert [child["kind"] for child in changes.creates] == ["Service"]
    assert [delete.target["kind"] for delete in changes.deletes] == ["ConfigMap"]


def test_another_version_of_the_same_kind_is_the_same_object() -> None:
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "a"}, "spec": {"x": 1}}
    old = _stored(budget | {"apiVersion": "policy/v1beta1"})
    changes = apply_children(PARENT, [budget], [old])
    assert (changes.creates, changes.deletes) == ((), ())


def test_a_patch_keeps_what_the_server_allocated() -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"selector": {"a": "1"}}}
    seen = _stored(service)
    seen["spec"] = {"selector": {"a": "0", "b": "0"}, "clusterIP": "10.0.0.1", "sessionAffinity": "None"}
    patch = merge_patch(complete_child(PARENT, service), seen)
    assert patch["spec"] == {"selector": {"a": "1", "b": None}, "sessionAffinity": None}


@pytest.mark.parametrize(
    ("observed", "wanted", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": []}, True),
        ({}, {"a": {}}, True),
        ({}, {"a": False}, True),
        ({}, {"a": 1}, False),
        (None, {"a": {"b": 1}}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"env": [{"name": "A", "value": "1"}, {"name": "B"}]}, {"env": [{"name": "A", "value": "1"}]}, True),
        ({"env": [{"name": "A", "value": "2"}]}, {"env": [{"name": "A", "value": "1"}]}, False),
        ({"env": []}, {"env": [{"name": "A"}]}, False),
        ({"selector": {"a": "1", "b": "1"}}, {"selector": {"a": "1"}}, False),
        ({"data": {"a": "1", "b": "1"}}, {"data": {"a": "1"}}, False),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, {"limits": {"cpu": "1000m", "memory": "1024Mi"}}, True),
        ({"limits": {"nvidia.com/gpu": "2"}}, {"limits": {"nvidia.com/gpu": 2}}, True),
        ({"limits": {"cpu": "2"}}, {"limits": {"cpu": "1"}}, False),
        ({"limits": {}}, {"limits": {"cpu": "1"}}, False),
        ({"averageValue": "1k"}, {"averageValue": "1000"}, True),
        ({"value": "1k"}, {"value": "1000"}, False),
    ],
)
def test_wanted_fields_are_looked_for_among_defaults(observed: Any, wanted: Json, same: bool) -> None:
    assert contains(observed, wanted) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1000m", 1, True),
        ("1Ki", "1024", True),
        ("1e3", "1k", True),
        ("1E", "1000P", True),
        ("1", "2", False),
        ("x", "y", False),
        ("x", "x", True),
    ],
)
def test_quantities_are_compared_by_their_amount(one: str, other: int | str, same: bool) -> None:
    assert same_quantity(one, other) is same


@pytest.mark.parametrize("text", ["", "1.5x", "-1", "Gi", "1 Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


JSON = st.recursive(
    st.integers(0, 3) | st.sampled_from(["a", "b"]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@given(wanted=st.dictionaries(st.sampled_from("abc"), JSON), seen=st.dictionaries(st.sampled_from("abc"), JSON))
def test_one_patch_always_suffices(wanted: Json, seen: Json) -> None:
    child = {"apiVersion": "example.test/v1", "kind": "Any", "metadata": {"name": "x"}, "spec": wanted}
    observed = _stored(child | {"spec": seen})
    for patch in apply_children(PARENT, [child], [observed]).patches:
        merge(observed, patch.body)
    assert contains(observed["spec"], wanted)
    assert apply_children(PARENT, [child], [observed]) == Changes()


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([PARENT, OTHER]))), st.sets(st.sampled_from("abcd")))
def test_nothing_of_others_is_ever_touched(seen: list[tuple[str, Json]], wanted: set[str]) -> None:
    observed = [_stored(_config(name, v="1"), owner) for name, owner in dict(seen).items()]
    changes = apply_children(PARENT, [_config(name, v="2") for name in wanted], observed)
    for target in [patch.target for patch in changes.patches] + [delete.target for delete in changes.deletes]:
        assert is_owned(target, PARENT)
    taken = {child["metadata"]["name"] for child in observed}
    assert {child["metadata"]["name"] for child in changes.creates} == wanted - taken
