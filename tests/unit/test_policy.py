"""A promotion policy names the field that is wrong."""

import json
from typing import Any

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
        ("max_p95_ms", 0),
        ("error_margin", 0),
        ("latency_margin", 0),
        ("false_rollbacks", 0),
        ("false_passes", 1),
        ("error_budget", 1.1),
        ("completions_share", 2),
        ("bake_s", -1),
        ("watch_s", -1),
        ("shadow_s", -1),
        ("min_requests", 0),
        ("drain_s", -1),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"{field} is out of range"):
        PromotionPolicy(**{field: value})  # type: ignore[arg-type]  # wrong values are the point


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollback_scope", "some"),
        ("on_follower_lost", "panic"),
        ("on_inconclusive", "guess"),
        ("required_gates", ["errors", "luck"]),
    ],
)
def test_a_word_that_is_none_is_named_with_those_that_are(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"{field} is not a word known here, got \w+, expected .+ \| .+"):
        PromotionPolicy(**{field: value})  # type: ignore[arg-type]  # wrong values are the point


@pytest.mark.parametrize("scorer", ["os", "os:", ":system", "a b:c", "os:system()", "../x:y"])
def test_a_scorer_is_a_reference_to_a_function(scorer: str) -> None:
    with pytest.raises(InvalidInput, match="completion_scorer is malformed"):
        PromotionPolicy(completion_scorer=scorer, completions_share=0.5)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"bake_s": 700.0}, "a step would be over before it has baked"),
        ({"synthetic_evidence": True}, "replays would count, but none are sent"),
        ({"synthetic_after_s": 601.0}, "replays would begin after the step is over"),
        ({"shadow_s": 1.0, "shadow_share": 0.0}, "a shadow would see no request"),
        ({"completion_scorer": "a.b:c"}, "a scorer is named, but no completion is repeated"),
        ({"required_gates": ["score"]}, "the gate score is required, but no completion is repeated"),
        ({"required_gates": ["agreement"], "mirror_share": 0.0}, "the gate agreement is required, but no answer is"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"policy contradicts itself: {what}"):
        PromotionPolicy(**changes)


def test_the_edges_of_what_contradicts_are_taken() -> None:
    for changes in (
        {"bake_s": 600.0},
        {"synthetic_evidence": True, "synthetic_after_s": 0.0},
        {"synthetic_after_s": 600.0},
        {"shadow_s": 1.0, "shadow_share": 0.1},
        {"completion_scorer": "a.b:c", "completions_share": 0.1},
        {"required_gates": ["score", "agreement"], "completions_share": 0.1, "mirror_share": 0.1},
    ):
        PromotionPolicy(**changes)  # type: ignore[arg-type]  # one of each


def test_a_policy_of_another_agent_is_read_as_far_as_it_is_known() -> None:
    written = {**PromotionPolicy(min_requests=7).to_json(), "of_tomorrow": 1}
    assert PromotionPolicy.from_peer(written) == PromotionPolicy(min_requests=7)
    with pytest.raises(InvalidInput, match="policy is malformed"):
        PromotionPolicy.from_peer(["not", "an", "object"])


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


def test_the_command_line_takes_a_preset_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert flyte.PromotionPolicy.from_json("few-users") == flyte.FEW_USERS
    assert flyte.FEW_USERS.on_inconclusive == "hold"
    with pytest.raises(StageError):
        flyte.PromotionPolicy.from_json("no-users")
    assert "expected a JSON object, or one of language-models, few-users, replays" in capsys.readouterr().err


def test_the_command_line_reads_a_policy() -> None:
    policy = flyte.PromotionPolicy.from_json('{"steps_percent": [10, 100], "drain_s": 1.5}')
    assert (policy.steps_percent, policy.drain_s) == ([10, 100], 1.5)
