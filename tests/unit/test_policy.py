"""A promotion policy names the field that is wrong."""

import dataclasses
import json
import math
import typing
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.regions.deciding.policy import EVIDENCE_GATES, PromotionPolicy
from tasks.boundary import StageError
from tasks.promotion import policy as flyte


def test_a_policy_that_says_nothing_is_the_one_that_the_documents_describe() -> None:
    assert PromotionPolicy().to_json() == {
        "steps_percent": [5, 25, 50, 100],
        "bake_s": 30.0,
        "min_requests": 50,
        "step_timeout_s": 600.0,
        "on_inconclusive": "hold",
        "required_gates": ["errors", "refusals", "latency"],
        "false_rollbacks": 0.01,
        "false_passes": 0.05,
        "error_margin": 0.01,
        "refusal_margin": 0.01,
        "latency_margin": 0.25,
        "max_accuracy_drop": 0.02,
        "min_agreement": 0.9,
        "min_score": 0.5,
        "max_error_rate": 0.01,
        "max_p95_ms": 250.0,
        "error_budget": 0.05,
        "synthetic_after_s": -1.0,
        "synthetic_evidence": False,
        "shadow_s": 0.0,
        "mirror_share": 1.0,
        "shadow_share": 1.0,
        "completions_share": 0.0,
        "completion_scorer": "",
        "watch_s": 300.0,
        "watch_share": 0.0,
        "drain_s": 10.0,
        "standby_s": 600.0,
        "start_timeout_s": 180.0,
        "prepare_ahead": 0,
        "rollback_scope": "all",
        "on_follower_lost": "continue",
        "follower_lease_s": 60.0,
    }


def test_the_words_of_a_policy_are_taken() -> None:
    assert EVIDENCE_GATES == ("errors", "refusals", "latency", "agreement", "accuracy", "score")
    for field, words in {
        "on_inconclusive": ("hold", "go", "back"),
        "rollback_scope": ("region", "all"),
        "on_follower_lost": ("continue", "rollback"),
    }.items():
        for word in words:
            taken = PromotionPolicy(**{field: word})  # type: ignore[arg-type]  # one of each
            assert getattr(taken, field) == word


SHARES = ("max_error_rate", "min_agreement", "min_score", "max_accuracy_drop", "error_budget", "mirror_share")
SHARES += ("shadow_share", "completions_share", "watch_share")
INSIDE = ("false_rollbacks", "false_passes")
POSITIVE = ("max_p95_ms", "step_timeout_s", "start_timeout_s", "follower_lease_s", "latency_margin")
NOT_NEGATIVE = ("bake_s", "shadow_s", "watch_s", "drain_s", "standby_s", "prepare_ahead")


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        *((name, (0.0, 1.0), (-0.01, 1.01)) for name in SHARES),
        *((name, (0.01, 0.99), (0.0, 1.0, -0.1, 1.1)) for name in INSIDE),
        *((name, (0.5,), (0.0, -0.5)) for name in POSITIVE),
        *((name, (0, 1), (-1, -0.1)) for name in NOT_NEGATIVE),
        *((name, (0.01, 1.0), (0.0, -0.01, 1.01)) for name in ("error_margin", "refusal_margin")),
        ("min_requests", (1, 2), (0, -1)),
    ],
)
def test_both_sides_of_every_bound(field: str, taken: tuple[float, ...], refused: tuple[float, ...]) -> None:
    room: dict[str, Any] = {"bake_s": 0.0} if field == "step_timeout_s" else {}
    for value in taken:
        assert getattr(PromotionPolicy(**{field: value}, **room), field) == value
    for value in refused:
        with pytest.raises(InvalidInput, match=f"^{field} is out of range, got {value}, expected "):
            PromotionPolicy(**{field: value}, **room)


@pytest.mark.parametrize("steps", [[], [5, 5, 100], [50, 25, 100], [5, 50], [0, 100], [-5, 100], [5, 100, 200]])
def test_steps_that_do_not_rise_to_100_are_refused(steps: list[int]) -> None:
    with pytest.raises(InvalidInput, match=r"^steps_percent is not usable"):
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
    with pytest.raises(InvalidInput, match=f"^{field} is out of range"):
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
    with pytest.raises(InvalidInput, match=rf"^{field} is not a word known here, got \w+, expected .+ \| .+"):
        PromotionPolicy(**{field: value})  # type: ignore[arg-type]  # wrong values are the point


@pytest.mark.parametrize("scorer", ["os", "os:", ":system", "a b:c", "os:system()", "../x:y"])
def test_a_scorer_is_a_reference_to_a_function(scorer: str) -> None:
    with pytest.raises(InvalidInput, match=r"^completion_scorer is malformed"):
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
    with pytest.raises(InvalidInput, match=f"^policy contradicts itself: {what}"):
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
    with pytest.raises(InvalidInput, match=r"^policy is malformed"):
        PromotionPolicy.from_peer(["not", "an", "object"])


def test_a_policy_of_before_steps_baked_is_read_whatever_its_steps_last() -> None:
    written = {"steps_percent": [100], "step_timeout_s": 3.0, "synthetic_after_s": 5.0, "max_p95_ratio": 2.0}
    policy = PromotionPolicy.from_peer(written)
    assert (policy.bake_s, policy.synthetic_after_s, policy.step_timeout_s) == (3.0, 3.0, 3.0)
    assert PromotionPolicy.from_peer({}) == PromotionPolicy()
    assert PromotionPolicy.from_peer(policy.to_json()) == policy


def test_json_gives_back_the_same_policy() -> None:
    policy = PromotionPolicy(steps_percent=[10, 100], min_requests=7)
    assert PromotionPolicy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps_percent", [0.5, 100]),
        ("steps_percent", [True, 100]),
        ("steps_percent", {"5": 1}),
        ("prepare_ahead", 1.5),
        ("min_requests", 10**400),
        ("watch_s", math.inf),
        ("watch_s", True),
        ("synthetic_evidence", "no"),
        ("required_gates", {"errors": 1}),
        ("completion_scorer", 0),
    ],
)
def test_an_order_with_a_value_that_no_agent_could_follow_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name} of the policy is malformed"):
        PromotionPolicy.from_json({name: value})


def test_whole_numbers_are_numbers() -> None:
    assert PromotionPolicy.from_json({"watch_s": 5}).watch_s == 5


def test_an_unknown_field_is_refused_not_ignored() -> None:
    for raw in ({"step_percent": [100]}, [], None):
        with pytest.raises(InvalidInput, match=r"^policy is malformed"):
            PromotionPolicy.from_json(raw)


def test_the_command_line_gets_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError) as stopped:
        flyte.PromotionPolicy.from_json(json.dumps({"steps_percent": [50, 20]}))
    assert stopped.value.exit_code == 1
    assert capsys.readouterr().err == (
        "flightpath: steps_percent is not usable, got [50, 20], "
        "expected strictly rising percentages that end with 100\n"
    )


def test_the_command_line_takes_a_preset_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert flyte.PromotionPolicy.from_json('{"preset": "few-users"}') == flyte.FEW_USERS
    changed = flyte.PromotionPolicy.from_json('{"preset": "replays", "bake_s": 2}')
    assert (changed.bake_s, changed.synthetic_evidence) == (2, True)
    assert flyte.FEW_USERS.on_inconclusive == "hold"
    with pytest.raises(StageError):
        flyte.PromotionPolicy.from_json('{"preset": "no-users"}')
    assert "got no-users, expected language-models | few-users | replays" in capsys.readouterr().err


def test_the_command_line_reads_a_policy() -> None:
    policy = flyte.PromotionPolicy.from_json('{"steps_percent": [10, 100], "drain_s": 1.5}')
    assert (policy.steps_percent, policy.drain_s) == ([10, 100], 1.5)


def test_fields_that_flytekit_has_rewritten_are_read_all_the_same() -> None:
    lists = [entry for entry in dataclasses.fields(flyte.PromotionPolicy) if get_args(entry.type)]
    before = {entry.name: entry.type for entry in lists}
    try:
        for entry in lists:
            entry.type = typing.List[get_args(entry.type)[0]]  # type: ignore[assignment, misc]  # noqa: UP006  # as flytekit does
        policy = flyte.PromotionPolicy.from_json('{"steps_percent": [10, 100], "required_gates": ["errors"]}')
        assert policy.steps_percent == [10, 100]
    finally:
        for entry in lists:
            entry.type = before[entry.name]
