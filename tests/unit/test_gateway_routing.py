"""Shares are exact, candidates come in the promised order, and a route that does not hold is refused."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.gateway.routing import RouteInForce, SmoothWeightedRoundRobin
from serving.routes import Backend, parse_route
from tests.fakes.gateways import backend, mirror, route


def parsed(*backends: dict[str, Any], **changes: Any) -> RouteInForce:
    return RouteInForce(parse_route(route(*backends, **changes), model="digits"))


def local(name: str, weight: int) -> dict[str, Any]:
    return backend(name, "http://127.0.0.1:1", weight=weight)


def remote(name: str, weight: int) -> dict[str, Any]:
    return backend(name, "http://127.0.0.1:1", weight=weight, remote=True, region="eu-west")


def ids(backends: list[Backend]) -> list[str]:
    return [chosen.id for chosen in backends]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any), st.integers(1, 3))
def test_shares_are_exact_over_every_full_turn(weights: list[int], turns: int) -> None:
    backends = parsed(*(local(f"b{index}", weight) for index, weight in enumerate(weights))).route.backends
    robin = SmoothWeightedRoundRobin(backends)
    picked = Counter(chosen.id for _ in range(turns * sum(weights)) if (chosen := robin.pick()))
    assert picked == {f"b{index}": turns * weight for index, weight in enumerate(weights) if weight}


def test_a_canary_of_5_percent_is_spread_and_not_bunched() -> None:
    in_force = parsed(local("live", 95), local("canary", 5))
    chosen = [in_force.candidates(hop=False)[0].id for _ in range(100)]
    positions = [index for index, name in enumerate(chosen) if name == "canary"]
    assert [b - a for a, b in itertools.pairwise(positions)] == [20, 20, 20, 20]


def test_fail_over_goes_by_weight_then_to_idle_ones_then_to_other_regions() -> None:
    in_force = parsed(remote("far", 40), local("idle", 0), local("small", 10), local("big", 50), remote("spare", 0))
    orders = [ids(in_force.candidates(hop=False)) for _ in range(100)]
    assert all(order[1:] == [n for n in ("big", "small", "idle", "far", "spare") if n != order[0]] for order in orders)
    assert {order[0] for order in orders} == {"big", "small", "far"}


def test_a_request_of_another_gateway_never_leaves_the_region() -> None:
    in_force = parsed(remote("far", 90), local("near", 10), local("idle", 0))
    assert [ids(in_force.candidates(hop=True)) for _ in range(3)] == [["near", "idle"]] * 3
    assert parsed(remote("far", 100), local("idle", 0)).candidates(hop=True) == []


def test_backends_of_weight_0_alone_serve_nobody() -> None:
    assert parsed(local("staged", 0)).candidates(hop=False) == []
    assert parsed().candidates(hop=False) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema_version": 2}, "unknown schema_version"),
        ({"model": "other"}, "another model"),
        ({"mirror": mirror("a", "nobody"), "backends": [local("a", 1)]}, "mirror names no backend of the route"),
        ({"mirror": mirror("a", "a"), "backends": [local("a", 1)]}, "mirror names one backend twice"),
        ({"mirror": mirror("a", "b", live_share=1.5)}, "live_share of the mirror is out of range"),
        ({"mirror": {"candidate": "a"}}, "mirror has wrong fields"),
        ({"mirror": "a"}, "wrong type"),
        ({"classes": [1]}, "classes is malformed"),
        ({"backends": [local("a", 1), local("a", 2)]}, "names a backend twice"),
        ({"backends": [local("a", 101)]}, "weight of a is out of range, got 101, expected 0 to 100"),
        ({"backends": [{**local("a", 1), "weight": True}]}, "wrong type"),
        ({"backends": [{**local("a", 1), "weight": 1.5}]}, "wrong type"),
        ({"backends": [{**local("a", 1), "url": "file:///etc"}]}, "url of a is malformed"),
        ({"backends": [{**local("a", 1), "url": "http://user:pw@host"}]}, "url of a is malformed"),
        ({"backends": [{**local("a", 1), "url": "http://host/path?x"}]}, "url of a is malformed"),
        ({"backends": ["a"]}, "backend is malformed"),
        ({"backends": None}, "wrong type"),
    ],
)
def test_a_route_that_does_not_hold_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        parse_route({**route(), **change}, model="digits")


def test_fields_of_a_younger_agent_or_gateway_are_left_out() -> None:
    document = route(local("a", 1), local("b", 1), mirror=mirror("b", "a"))
    younger = {**document, "new": 1, "mirror": {**document["mirror"], "new": 1}}
    younger["backends"] = [{**backend, "new": 1} for backend in document["backends"]]
    assert parse_route(younger, model="digits").to_json() == document


def test_a_route_survives_json() -> None:
    document = route(local("a", 1), remote("b", 0), mirror=mirror("b", "a", candidate_share=0.5), reason="why")
    assert parse_route(document, model="digits").to_json() == document


def test_a_route_that_an_older_gateway_saved_is_read_without_its_mirror() -> None:
    saved = {name: value for name, value in route(local("a", 1)).items() if name != "mirror"}
    assert parse_route({**saved, "mirror_to": "a"}, model="digits").mirror is None
