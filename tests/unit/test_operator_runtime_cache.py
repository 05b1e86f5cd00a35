"""The cache: newest wins, whatever the order in which things are heard."""

from typing import Any

from flightpath_operator.plan import OWNER_LABEL
from flightpath_operator.runtime.cache import Cache
from hypothesis import given
from hypothesis import strategies as st


def make(name: str, version: int, uid: str = "u1", owner: str = "tj.a") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": {**metadata, "labels": {OWNER_LABEL: owner}}}


def test_an_older_event_changes_nothing() -> None:
    cache = Cache()
    assert cache.put(make("a", 5))
    assert not cache.put(make("a", 4))
    assert not cache.put(make("a", 5))
    assert cache.get("ns", "a") == make("a", 5)


def test_a_deleted_object_does_not_come_back_by_a_late_event() -> None:
    cache = Cache()
    cache.put(make("a", 5))
    assert cache.drop(make("a", 6))
    assert not cache.put(make("a", 5))
    assert cache.get("ns", "a") is None
    assert cache.owned_by("ns", "tj.a") == []


def test_a_namesake_that_came_later_survives_the_end_of_the_first() -> None:
    cache = Cache()
    cache.put(make("a", 5, uid="u1"))
    cache.put(make("a", 9, uid="u2"))
    assert not cache.drop(make("a", 6, uid="u1"))
    assert cache.get("ns", "a") == make("a", 9, uid="u2")


def test_a_list_tells_what_changed_and_what_went() -> None:
    cache = Cache()
    for name in ("kept", "changed", "gone"):
        cache.put(make(name, 1, uid=name))
    listed = [make("kept", 1, uid="kept"), make("changed", 2, uid="changed"), make("new", 3, uid="new")]
    assert {obj["metadata"]["name"] for obj in cache.replace(listed)} == {"changed", "gone", "new"}
    assert len(cache) == 3


def test_an_object_that_changes_its_owner_is_found_by_the_new_one() -> None:
    cache = Cache()
    cache.put(make("a", 1))
    cache.put(make("a", 2, owner="tj.b"))
    assert cache.owned_by("ns", "tj.a") == []
    assert cache.owned_by("ns", "tj.b") == [make("a", 2, owner="tj.b")]


@given(st.permutations([("put", 1), ("put", 2), ("put", 3), ("drop", 4)]))
def test_in_any_order_of_hearing_the_deletion_is_the_end(events: list[tuple[str, int]]) -> None:
    cache = Cache()
    for verb, version in events:
        (cache.put if verb == "put" else cache.drop)(make("a", version))
    assert cache.get("ns", "a") is None
