"""The bound on an attempt follows the model's own answers, and retries stay a share of its requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.lateness import Kind, Lateness, LatenessLimits, Patience
from serving.gateway.retries import RetryBudgets, RetryLimits

LIMITS = LatenessLimits()


def patient(kind: Kind = Kind.INFER, *seconds: float, remote: bool = False) -> Patience:
    patience = Lateness(LIMITS).of("m", kind)
    for each in seconds:
        patience.answered(each, remote=remote)
    return patience


@pytest.mark.parametrize(
    ("kind", "p99_s", "bound_s"),
    [
        (Kind.INFER, 0.005, 2.0),
        (Kind.INFER, 0.2, 4.0),
        (Kind.INFER, 5.0, 30.0),
        (Kind.FIRST_TOKEN, 0.05, 2.0),
        (Kind.FIRST_TOKEN, 0.5, 10.0),
        (Kind.FIRST_TOKEN, 10.0, 60.0),
        (Kind.COMPLETION, 1.0, 60.0),
        (Kind.COMPLETION, 10.0, 200.0),
        (Kind.COMPLETION, 100.0, 600.0),
    ],
)
def test_the_bound_is_20_times_what_the_slowest_of_100_answers_takes_within_limits(
    kind: Kind, p99_s: float, bound_s: float
) -> None:
    assert patient(kind, *[p99_s] * 200).bound_s() == pytest.approx(bound_s, rel=0.05)


@pytest.mark.parametrize(("kind", "first_s"), [(Kind.INFER, 10), (Kind.FIRST_TOKEN, 30), (Kind.COMPLETION, 120)])
def test_a_server_that_is_stopped_before_it_ever_answered_is_given_up_as_well(kind: Kind, first_s: float) -> None:
    assert patient(kind).bound_s() == first_s
    assert patient(kind, *[0.001] * 19).bound_s() == first_s
    assert patient(kind, *[0.001] * 20).bound_s() < first_s


@given(st.lists(st.floats(0.0001, 500), max_size=300))
def test_the_first_time_out_is_at_most_2_s_or_20_times_p99(latencies: list[float]) -> None:
    bound_s = patient(Kind.INFER, *latencies).bound_s()
    slowest = max(latencies, default=0.0)
    limit = 10.0 if len(latencies) < 20 else max(2.0, 20 * 1.05 * slowest)
    assert bound_s <= min(30.0, limit) + 1e-9


def test_older_answers_fade() -> None:
    patience = patient(Kind.INFER, *[1.0] * 2000)
    assert patience.bound_s() == pytest.approx(20, rel=0.05)
    for _ in range(20_000):
        patience.answered(0.005, remote=False)
    assert patience.bound_s() == 2.0


def test_another_region_is_timed_apart_and_given_time_to_ask_a_second_server() -> None:
    patience = patient(Kind.INFER, *[0.005] * 100)
    assert (patience.bound_s(), patience.bound_s(remote=True)) == (2.0, 10.0)
    for _ in range(100):
        patience.answered(0.08, remote=True)
    assert (patience.bound_s(), patience.bound_s(remote=True)) == (2.0, 5.0)


def test_the_request_that_tries_a_late_server_waits_less() -> None:
    assert patient(Kind.INFER, *[0.005] * 100).bound_s(probe=True) == 0.25
    assert patient(Kind.INFER, *[0.05] * 100).bound_s(probe=True) == pytest.approx(1.0, rel=0.05)
    assert patient(Kind.INFER, *[0.5] * 100).bound_s(probe=True) == pytest.approx(10.0, rel=0.05)
    assert patient(Kind.INFER).bound_s(probe=True) == 2.0


def test_a_model_that_became_slower_than_its_bound_is_learned() -> None:
    patience = patient(Kind.INFER, *[0.005] * 100)
    for _ in range(3):
        patience.late_everywhere(patience.bound_s())
    assert patience.bound_s() > 2.0


def test_models_and_kinds_are_timed_apart() -> None:
    lateness = Lateness(LIMITS)
    for _ in range(100):
        lateness.of("a", Kind.INFER).answered(1.0, remote=False)
    assert lateness.of("a", Kind.INFER).bound_s() > 10
    assert lateness.of("b", Kind.INFER).bound_s() == 10
    assert lateness.of("a", Kind.FIRST_TOKEN).bound_s() == 30
    lateness.forget("a")
    assert lateness.of("a", Kind.INFER).bound_s() == 10


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def granted(budgets: RetryBudgets, times: int) -> int:
    return sum(budgets.take("m") for _ in range(times))


def test_retries_are_a_fifth_of_the_requests_and_ten_more() -> None:
    budgets = RetryBudgets(RetryLimits(), Clock())
    assert granted(budgets, 50) == 10
    for _ in range(100):
        budgets.asked("m")
    assert granted(budgets, 50) == 20
    assert budgets.take("other")


def test_the_budget_comes_back_with_time_and_lapses_with_its_requests() -> None:
    clock = Clock()
    budgets = RetryBudgets(RetryLimits(), clock)
    for _ in range(100):
        budgets.asked("m")
    assert granted(budgets, 50) == 30
    clock.now += 9
    assert granted(budgets, 50) == 0
    clock.now += 1
    assert granted(budgets, 50) == 10
    clock.now += 1000
    assert granted(budgets, 50) == 10
    clock.now -= 5
    assert granted(budgets, 50) == 0


def test_a_steady_share_of_failures_is_retried_for_ever() -> None:
    clock = Clock()
    budgets = RetryBudgets(RetryLimits(), clock)
    refused = 0
    for index in range(10_000):
        clock.now += 0.01
        budgets.asked("m")
        if index % 6 == 0:
            refused += not budgets.take("m")
    assert refused == 0
