"""Plans read as the world that they would leave, and the digest that an approval repeats."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.planned import PlannedResource, Value, read_world
from tasks.clusters.planning import digest_of
from tests.fakes.cloud_plans import document, planned
from tests.fakes.recorded_plans.recording import recorded

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner)
)


def resource(values: dict[str, Any], unknown: dict[str, Any] | None = None, configured: Any = None) -> PlannedResource:
    expressions = {"t.x": configured} if configured else {}
    (found,) = read_world(document(planned("t.x", values, unknown=unknown), set_=expressions)).resources
    return found


def test_a_value_is_known_unknown_or_not_there() -> None:
    found = resource({"a": [{"b": 1}, {"b": 2}], "c": None}, {"d": True, "e": True}, {"d": {"references": ["t.y"]}})
    assert found.read("a.b") == [1, 2]
    assert found.read("c") == [Value.MISSING]
    assert found.read("nothing.at.all") == [Value.MISSING]
    assert (found.read("d"), found.read("e")) == ([Value.UNKNOWN], [Value.MISSING])
    assert (found.one("a.b"), found.one("d", "default")) == (1, "default")


def test_what_is_unknown_in_one_element_of_a_list_is_unknown_there_alone() -> None:
    found = resource({"a": [{"b": 1}, {}]}, {"a": [{}, {"b": True}]}, {"a": [{}]})
    assert found.read("a.b") == [1, Value.UNKNOWN]


@settings(deadline=None)
@given(values=st.dictionaries(st.sampled_from("abc"), TREES), unknown=st.dictionaries(st.sampled_from("abc"), TREES))
def test_any_path_into_any_tree_has_an_answer(values: dict[str, Any], unknown: dict[str, Any]) -> None:
    found = resource(values, unknown)
    for path in ("a", "a.b", "b.c.a", "c.c.c.c"):
        assert found.read(path) != []


def test_resources_that_stay_go_and_are_replaced_are_told_apart() -> None:
    actions = {"keep": ("no-op",), "gone": ("delete",), "new": ("create", "delete"), "left": ("forget",)}
    changes = [planned(f"t.{name}", {}, actions=acts, before={}) for name, acts in actions.items()]
    world = read_world(document(*changes))
    assert {r.address for r in world.staying} == {"t.keep", "t.new"}
    assert {r.address for r in world.resources if r.destroys} == {"t.gone", "t.new"}


def test_a_reference_counts_within_its_module_and_by_its_whole_name() -> None:
    world = read_world(recorded("us-east"))
    (bucket,), (block,) = world.of_type("aws_s3_bucket"), world.of_type("aws_s3_bucket_public_access_block")
    (key,) = (item for item in world.of_type("aws_kms_key") if ".storage." in item.address)
    assert block.refers_to("bucket", bucket)
    assert not block.refers_to("bucket", key)
    assert not block.refers_to("block_public_acls", bucket)


# The digest


def change(
    after: dict[str, Any], sensitive: dict[str, Any] | None = None, actions: tuple[str, ...] = ("create",)
) -> Any:
    raw = planned("t.x", after, actions=actions)
    raw["change"]["after_sensitive"] = sensitive or {}
    return document(raw)


def test_a_digest_follows_what_changes_and_not_when_it_was_planned() -> None:
    base = recorded("us-east")
    assert digest_of(base) == digest_of({**copy.deepcopy(base), "timestamp": "2026-11-26T00:00:00Z"})
    assert digest_of(base) != digest_of(recorded("eu-west"))
    assert digest_of(change({"a": 1})) != digest_of(change({"a": 2}))
    assert digest_of(change({"a": 1})) != digest_of(change({"a": 1}, actions=("delete", "create")))
    with_output = {**change({"a": 1}), "output_changes": {"o": {"actions": ["create"], "after": 1}}}
    assert digest_of(with_output) != digest_of(change({"a": 1}))


def test_a_digest_tells_nothing_of_secrets_but_that_one_changes() -> None:
    one, other = change({"p": "a", "n": 1}, {"p": True}), change({"p": "b", "n": 1}, {"p": True})
    assert digest_of(one) == digest_of(other)
    assert digest_of(one) != digest_of(change({"n": 1}))


@pytest.mark.parametrize("actions", [("no-op",), ("read",)])
def test_what_stays_as_it_is_does_not_count(actions: tuple[str, ...]) -> None:
    still = planned("t.y", {"a": 5}, actions=actions)
    assert digest_of(document(planned("t.x", {"a": 1}), still)) == digest_of(document(planned("t.x", {"a": 1})))
