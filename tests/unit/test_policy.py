"""A promotion policy names the field that is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.regions.deciding.policy import PromotionPolicy
from tasks.boundary import StageError
from tasks.promotion import policy as flyte


@pytest.mark.parametrize("steps", [[], [5, 5, 100], [50, 25, 100], [5, 50], [0, 100], [-5, 100], [5, 100, 200]])
def test_steps_that_do_not_rise_to_100_are_refused(steps: list[int]) -> None:
    with pytest.raises(InvalidInput, match="steps_percent is not usable"):
        PromotionPolicy(steps_percent=steps)


@given(st.sets(st.integers(min_value=1, max_value=99)))
def test_every_rising_list_that_ends_with_100_is_taken(steps: set[int]) -> None:
    assert PromotionPolicy(steps_percent=[*sorted(steps), 100]).steps_percent[-1] == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_error_rate", 1.5),
        ("min_agreement", -0.1),
        ("max_p95_ratio", 0),
        ("min_requests", 0),
        ("drain_s", -1),
        ("rollback_scope", "some"),
        ("on_follower_lost", "panic"),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"{field} is out of range"):
        PromotionPolicy(**{field: value})  # type: ignore[arg-type]  # wrong values are the point


def test_json_gives_back_the_same_policy() -> None:
    policy = PromotionPolicy(steps_percent=[10, 100], min_requests=7)
    assert PromotionPolicy.from_json(policy.to_json()) == policy


def test_an_unknown_field_is_refused_not_ignored() -> None:
    with pytest.raises(InvalidInput, match="policy is malformed"):
        PromotionPolicy.from_json({"step_percent": [100]})


def test_the_command_line_gets_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError) as stopped:
        flyte.PromotionPolicy.from_json(json.dumps({"steps_percent": [50, 20]}))
    assert stopped.value.exit_code == 1
    assert capsys.readouterr().err == (
        "flightpath: steps_percent is not usable, got [50, 20], "
        "expected strictly rising percentages that end with 100\n"
    )


def test_the_command_line_reads_a_policy() -> None:
    policy = flyte.PromotionPolicy.from_json('{"steps_percent": [10, 100], "drain_s": 1.5}')
    assert (policy.steps_percent, policy.drain_s) == ([10, 100], 1.5)
