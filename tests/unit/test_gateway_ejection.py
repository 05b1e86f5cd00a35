"""A backend that keeps failing is passed over for a growing time, tried by one request, and never the last one."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway import blame
from serving.gateway.ejection import Ejection, EjectionLimits
from serving.gateway.routing import RouteInForce
from serving.routes import Backend, parse_route
from tests.fakes.gateways import backend, route

MODEL = "digits"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejection(clock: Clock) -> Ejection:
    return Ejection(EjectionLimits(), clock)


def at(name: str, url: str = "http://127.0.0.1:1") -> Backend:
    return Backend(id=name, release="r", version=1, region="us-east", url=url, remote=False, weight=100)


A = at("a")


def end(ejection: Ejection, verdict: blame.Verdict) -> bool:
    """A whole attempt."""
    return ejection.ended(MODEL, A, verdict, probe=ejection.began(MODEL, A))


def fail(ejection: Ejection, times: int) -> list[bool]:
    return [end(ejection, blame.FAILED) for _ in range(times)]


def test_three_failures_in_a_row_eject(ejection: Ejection) -> None:
    assert fail(ejection, 2) == [False, False]
    end(ejection, blame.ANSWERED)
    assert fail(ejection, 2) == [False, False]
    end(ejection, blame.REFUSED)
    assert fail(ejection, 3) == [False, False, True]
    assert ejection.avoided(MODEL, [A, at("b")]) == {"a"}
    assert not ejection.ejected("other", A)


def test_one_late_answer_ejects_at_once(ejection: Ejection, clock: Clock) -> None:
    assert end(ejection, blame.LATE)
    assert ejection.ejected(MODEL, A)
    # Others that waited beside it are no news.
    assert not ejection.ended(MODEL, A, blame.LATE, probe=False)
    clock.now += 1
    assert end(ejection, blame.LATE)
    clock.now += 1.5
    assert ejection.ejected(MODEL, A)


@pytest.mark.parametrize("verdict", [blame.OVERLOADED, blame.REFUSED, blame.ABANDONED, blame.UNKNOWN, blame.ANSWERED])
def test_what_is_no_failure_never_ejects(ejection: Ejection, verdict: blame.Verdict) -> None:
    assert [end(ejection, verdict) for _ in range(50)] == [False] * 50
    assert not ejection.ejected(MODEL, A)


def test_no_room_is_a_sign_of_life_and_forgets_no_failures(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, 2)
    end(ejection, blame.OVERLOADED)
    assert fail(ejection, 1) == [True]
    clock.now += 1
    end(ejection, blame.OVERLOADED)
    assert not ejection.ejected(MODEL, A)


def test_each_ejection_is_twice_as_long_up_to_a_bound(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, 3)
    lengths = []
    for _ in range(8):
        start = clock.now
        while ejection.ejected(MODEL, A):
            clock.now += 0.5
        lengths.append(clock.now - start)
        fail(ejection, 1)
    assert lengths == [1, 2, 4, 8, 16, 30, 30, 30]


def test_one_request_decides_whether_it_comes_back(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, 3)
    clock.now += 1
    assert not ejection.ejected(MODEL, A)
    assert ejection.began(MODEL, A)
    assert ejection.ejected(MODEL, A)
    assert not ejection.began(MODEL, A)
    ejection.ended(MODEL, A, blame.ANSWERED, probe=True)
    assert not ejection.ejected(MODEL, A)
    assert fail(ejection, 2) == [False, False]


def test_a_user_who_leaves_decides_nothing(ejection: Ejection, clock: Clock) -> None:
    fail(ejection, 3)
    clock.now += 1
    assert ejection.began(MODEL, A)
    ejection.ended(MODEL, A, blame.ABANDONED, probe=True)
    assert not ejection.ejected(MODEL, A)
    assert ejection.began(MODEL, A)


def test_a_stream_that_begins_brings_it_back_and_one_that_breaks_ejects_it_for_longer(
    ejection: Ejection, clock: Clock
) -> None:
    fail(ejection, 3)
    clock.now += 1
    probe = ejection.began(MODEL, A)
    ejection.first_token(MODEL, A, probe=probe)
    assert not ejection.ejected(MODEL, A)
    assert ejection.ended(MODEL, A, blame.FAILED, probe=probe)
    clock.now += 1.5
    assert ejection.ejected(MODEL, A)
    clock.now += 0.5
    assert not ejection.ejected(MODEL, A)


def test_failures_that_began_before_the_ejection_do_not_lengthen_it(ejection: Ejection, clock: Clock) -> None:
    begun = [ejection.began(MODEL, A) for _ in range(20)]
    assert [ejection.ended(MODEL, A, blame.FAILED, probe=probe) for probe in begun].count(True) == 1
    clock.now += 1
    assert not ejection.ejected(MODEL, A)


def test_a_new_address_is_a_new_backend(ejection: Ejection) -> None:
    fail(ejection, 3)
    moved = at("a", "http://127.0.0.1:2")
    ejection.retain("other", [])
    assert ejection.ejected(MODEL, A)
    ejection.retain(MODEL, [moved])
    assert not ejection.ejected(MODEL, A)
    assert not ejection.ejected(MODEL, moved)


def in_force(*backends: dict[str, Any]) -> RouteInForce:
    return RouteInForce(parse_route(route(*backends), model=MODEL))


def local(name: str, weight: int, *, remote: bool = False) -> dict[str, Any]:
    return backend(name, "http://127.0.0.1:1", weight=weight, remote=remote)


def order(route: RouteInForce, *, hop: bool = False) -> Callable[..., list[str]]:
    return lambda *avoid: [chosen.id for chosen in route.candidates(hop=hop, avoid=frozenset(avoid))]


def test_the_avoided_come_last_and_the_others_share_by_weight() -> None:
    choose = order(in_force(local("a", 60), local("b", 30), local("c", 10), local("idle", 0)))
    orders = [choose("a") for _ in range(40)]
    assert all(chosen[-1] == "a" for chosen in orders)
    assert [chosen[0] for chosen in orders].count("b") == 30
    assert [chosen[0] for chosen in orders].count("c") == 10


def test_one_without_weight_stands_in_when_all_with_weight_are_avoided() -> None:
    choose = order(in_force(local("live", 100), local("idle", 0), local("far", 0, remote=True)))
    assert choose("live") == ["idle", "far", "live"]
    assert choose("live", "idle") == ["far", "live", "idle"]


def test_the_last_one_is_never_passed_over() -> None:
    both = in_force(local("a", 50), local("b", 50))
    assert {order(both)("a", "b")[0] for _ in range(2)} == {"a", "b"}
    assert order(in_force(local("a", 100)))("a") == ["a"]
    assert order(in_force(local("a", 100), local("far", 100, remote=True)), hop=True)("a") == ["a"]
    assert order(in_force(local("staged", 0)))("other") == []


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any),
    st.sets(st.sampled_from(["b0", "b1", "b2", "b3", "b4"])),
)
def test_avoiding_changes_the_order_and_never_who_is_asked(weights: list[int], avoid: set[str]) -> None:
    names = [f"b{index}" for index in range(len(weights))]
    chosen = order(in_force(*map(local, names, weights)))(*avoid)
    assert sorted(chosen) == names
    welcome = [name for name in chosen if name not in avoid]
    assert chosen[: len(welcome)] == welcome
