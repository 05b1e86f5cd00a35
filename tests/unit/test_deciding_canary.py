"""What a rollout does in its shadow and in each canary step, decision by decision."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Counters
from serving.regions.deciding.canary_decision import begin, decide_canary, decide_shadow, open_window, weights_in_force
from serving.regions.deciding.evidence import Scores, Window
from serving.regions.deciding.gates import FAILED, INCONCLUSIVE, GateResult
from serving.regions.deciding.rollout_state import (
    CANARY,
    LIVE,
    ROLLED_BACK,
    SHADOW,
    Action,
    Do,
    Effect,
    Rollout,
    Save,
    Step,
    backend_id,
    enter,
)
from tests.fakes.counted import counters, outcomes
from tests.fakes.rollouts import BEGAN, LIVE_NEW, NEW, OLD, POLICY, REGION, gateway, ready, rollout_in

EMPTY = gateway(new=counters(), old=counters())
WAIT = Do(effect=Effect.WAIT)


def saved(action: Action) -> Save:
    assert isinstance(action, Save)
    return action


def canary(percent: int = 5, **changes: object) -> Rollout:
    return rollout_in(CANARY, percent=percent, **{"baseline": EMPTY, **changes})


def shadow(**changes: object) -> Rollout:
    policy = replace(POLICY, shadow_s=30.0)
    return rollout_in(SHADOW, **{"baseline": EMPTY, "policy": policy, **changes})


def asked(requests: int) -> Counters:
    return counters(answered=requests)


def compared(requests: int) -> Counters:
    return counters(compared=requests, agreed=float(requests))


# Beginnings


def test_a_shadow_comes_first_where_the_policy_has_one_and_something_is_live() -> None:
    checked = rollout_in("golden", policy=replace(POLICY, shadow_s=0.5), baseline=EMPTY)
    begun = begin(checked, 120.0)
    assert begun == Save(
        rollout=replace(enter(checked, SHADOW, 120.0), baseline=None),
        message="in the live version's shadow for 0.5 s",
    )
    assert begun.rollout.steps[-1] == Step(state=SHADOW, percent=None, started_at=120.0)


@pytest.mark.parametrize("changes", [{"previous": None}, {"policy": POLICY}])
def test_without_a_shadow_the_first_canary_step_begins(changes: dict[str, object]) -> None:
    policy = replace(POLICY, shadow_s=30.0)
    begun = begin(rollout_in("golden", **{"policy": policy, **changes}), 120.0)
    assert (begun.rollout.state, begun.rollout.percent, begun.message) == (CANARY, 5, "canary 5 %")


def test_a_step_begins_with_nothing_of_the_one_before() -> None:
    before = rollout_in("golden", baseline=EMPTY, waiting_for="10 requests", scores=Scores(count=1, total=1.0))
    begun = begin(before, 120.0).rollout
    assert (begun.baseline, begun.waiting_for, begun.scores) == (None, None, Scores())
    assert begun.steps[-2].finished_at == 120.0
    assert begun.steps[-1] == Step(state=CANARY, percent=5, started_at=120.0)


# Weights in force


@pytest.mark.parametrize(
    "rollout",
    [rollout_in(LIVE), canary(100, ending=ROLLED_BACK, baseline=None), rollout_in("starting")],
)
def test_final_weights_begin_no_window(rollout: Rollout) -> None:
    assert weights_in_force(rollout, EMPTY, 120.0) == replace(rollout, weights_at=120.0)


@pytest.mark.parametrize("rollout", [shadow(baseline=None), canary(50, baseline=None)])
def test_a_step_with_a_control_begins_its_window_when_its_weights_are_in_force(rollout: Rollout) -> None:
    begun = weights_in_force(rollout, EMPTY, 120.0)
    steps = [*rollout.steps[:2], replace(rollout.steps[2], started_at=120.0)]
    assert begun == replace(rollout, baseline=EMPTY, steps=steps)


def test_at_all_traffic_what_the_live_version_did_since_the_opening_is_recorded() -> None:
    opening, now = gateway(old=counters(answered=7)), gateway(old=counters(answered=100, failed=3))
    rollout = canary(100, baseline=None, opening=opening)
    recorded = weights_in_force(rollout, now, 120.0).recorded
    assert recorded is not None
    assert (recorded.users.answered, recorded.users.failed) == (93, 3)
    assert weights_in_force(replace(rollout, previous=None), now, 120.0).recorded is None


# Windows


def test_a_window_is_what_both_have_counted_since_the_weights_were_in_force() -> None:
    rollout = canary(
        5,
        baseline=gateway(new=asked(1), old=asked(10)),
        scores=Scores(count=2, total=1.0),
        policy=replace(POLICY, synthetic_evidence=True, synthetic_after_s=0.0),
    )
    window = open_window(rollout, gateway(new=asked(4), old=asked(30)))
    assert (window.region, window.percent, window.scores) == (REGION, 5, Scores(count=2, total=1.0))
    assert (window.replays_count, window.recorded) == (True, False)
    assert window.live is not None
    assert (window.candidate.users.answered, window.live.users.answered) == (3, 20)


def test_at_all_traffic_the_window_is_held_against_what_was_recorded() -> None:
    recorded = asked(500)
    window = open_window(canary(100, recorded=recorded), gateway(new=asked(4), old=asked(30)))
    assert (window.live, window.recorded, window.percent, window.replays_count) == (recorded, True, 100, False)


def test_without_a_version_before_a_window_has_no_control() -> None:
    window = open_window(canary(100, previous=None, recorded=asked(5)), gateway(new=asked(4), old=asked(30)))
    assert (window.live, window.recorded, window.replays_count) == (None, False, True)
    assert open_window(canary(50, previous=None), EMPTY).live is None


def test_a_shadow_has_no_share_of_users() -> None:
    window = open_window(shadow(), gateway(new=compared(3), old=asked(30)))
    assert (window.percent, window.candidate.compared, window.recorded) == (0, 3, False)
    assert window.live is not None


# Shadow


def test_a_shadow_waits_for_its_weights_and_for_the_gateway() -> None:
    assert decide_shadow(shadow(baseline=None), ready(EMPTY), 120.0) == Do(effect=Effect.SHIFT_WEIGHTS)
    assert decide_shadow(shadow(), ready(None), 120.0) == WAIT


@pytest.mark.parametrize(
    ("requests", "now", "over"),
    [(10, BEGAN + 30, True), (10, BEGAN + 29.9, False), (9, BEGAN + 30, False), (11, BEGAN + 31, True)],
)
def test_a_shadow_ends_after_its_time_with_enough_compared(requests: int, now: float, over: bool) -> None:
    action = decide_shadow(shadow(), ready(gateway(new=compared(requests), old=asked(9))), now)
    if not over:
        assert action == WAIT
        return
    begun = saved(action).rollout
    assert (begun.state, begun.percent, begun.steps[2].finished_at) == (CANARY, 5, now)
    assert [gate.gate for gate in begun.steps[2].gates][:2] == ["errors", "refusals"]
    assert [window.candidate.compared for window in begun.evidence] == [requests]


def test_a_shadow_that_answers_otherwise_is_taken_back_with_its_evidence() -> None:
    different = gateway(new=counters(compared=200, agreed=20.0), old=asked(9))
    failed = saved(decide_shadow(shadow(promoted_by="ann"), ready(different), 101.0)).rollout
    assert (failed.ending, failed.state) == (ROLLED_BACK, SHADOW)
    assert (failed.reason or "").startswith("here, shadow: gate agreement failed: measured 0.1, allowed at least 0.9")
    assert {gate.status for gate in failed.steps[-1].gates if gate.gate == "agreement"} == {FAILED}
    assert [window.candidate.compared for window in failed.evidence] == [200]


def test_a_paused_shadow_waits_whatever_a_person_said_before() -> None:
    enough = ready(gateway(new=compared(50), old=asked(9)))
    assert decide_shadow(shadow(paused=True), enough, 150.0) == WAIT
    assert decide_shadow(shadow(paused=True, promoted_by="ann"), enough, 150.0) == WAIT
    assert saved(decide_shadow(shadow(promoted_by="ann"), ready(EMPTY), 101.0)).message == "canary 5 %"


def test_a_shadow_that_lacks_requests_is_inconclusive_after_its_time_and_a_steps() -> None:
    few = ready(gateway(new=compared(3), old=asked(9)))
    assert decide_shadow(shadow(), few, BEGAN + 90.0) == WAIT
    held = saved(decide_shadow(shadow(), few, BEGAN + 90.1))
    assert held.rollout.waiting_for == "3 of 10 requests compared in the shadow"
    assert decide_shadow(held.rollout, few, BEGAN + 91.0) == WAIT


def test_the_word_go_ends_a_shadow_with_a_note() -> None:
    rollout = shadow(policy=replace(POLICY, shadow_s=30.0, on_inconclusive="go"))
    begun = saved(decide_shadow(rollout, ready(EMPTY), BEGAN + 91)).rollout
    assert (begun.state, begun.percent) == (CANARY, 5)
    note = "0 of 10 requests compared in the shadow after 60 s: the policy says go"
    went_on = GateResult(gate="verdict", measured=None, allowed=None, unit="", status=INCONCLUSIVE, note=note)
    assert begun.steps[2].gates[-1] == went_on
    assert len(begun.evidence) == 1


# Canary


def test_a_canary_waits_for_its_weights_and_for_the_gateway() -> None:
    assert decide_canary(canary(baseline=None), ready(EMPTY), 120.0) == Do(effect=Effect.SHIFT_WEIGHTS)
    assert decide_canary(canary(), ready(None), 500.0) == WAIT


STEP_S = POLICY.step_timeout_s


@pytest.mark.parametrize(("rollout", "decide"), [(shadow, decide_shadow), (canary, decide_canary)])
def test_weights_that_the_gateway_never_takes_are_not_waited_for_longer_than_users(rollout: Any, decide: Any) -> None:
    waiting, late = rollout(baseline=None), BEGAN + 100 * STEP_S
    assert decide(waiting, ready(None), late) == Do(effect=Effect.SHIFT_WEIGHTS), "none was offered yet"
    assert decide(waiting, ready(None, weights_refused_s=STEP_S), late) == Do(effect=Effect.SHIFT_WEIGHTS)
    back = saved(decide(waiting, ready(None, weights_refused_s=STEP_S + 1), late)).rollout
    assert (back.ending, back.weights_at) == (ROLLED_BACK, None)
    assert f"the gateway did not take the weights for {STEP_S + 1:.0f} s" in back.reason
    paused = rollout(baseline=None, paused=True)
    assert decide(paused, ready(None, weights_refused_s=STEP_S + 1), late) == Do(effect=Effect.SHIFT_WEIGHTS)


@pytest.mark.parametrize(("rollout", "decide"), [(shadow, decide_shadow), (canary, decide_canary)])
def test_a_gateway_is_silent_from_its_last_answer_however_long_the_step_has_been_on(rollout: Any, decide: Any) -> None:
    late = BEGAN + 100 * STEP_S
    assert decide(rollout(), ready(None, gateway_silent_s=STEP_S), late) == WAIT
    back = saved(decide(rollout(), ready(None, gateway_silent_s=STEP_S + 1), late)).rollout
    assert back.ending == ROLLED_BACK
    assert f"the gateway told no counters for {STEP_S + 1:.0f} s" in back.reason
    assert decide(rollout(paused=True), ready(None, gateway_silent_s=STEP_S + 1), late) == WAIT


@pytest.mark.parametrize(
    ("requests", "now", "over"),
    [(10, BEGAN + 20, True), (10, BEGAN + 19.9, False), (9, BEGAN + 20, False), (11, BEGAN + 21, True)],
)
def test_a_step_passes_once_it_has_baked_with_enough_requests(requests: int, now: float, over: bool) -> None:
    action = decide_canary(canary(), ready(gateway(new=asked(requests), old=asked(100))), now)
    if not over:
        assert action == WAIT
        return
    passed = saved(action)
    assert (passed.rollout.percent, passed.message, passed.live) == (50, "canary 50 %", None)
    assert passed.rollout.steps[-2].gates[0].gate == "requests"
    assert (passed.rollout.steps[-2].requests, passed.rollout.steps[-2].finished_at) == (requests, now)


def test_a_failing_gate_takes_back_though_the_rollout_is_paused_or_promoted() -> None:
    failing = ready(gateway(new=counters(failed=30), old=asked(200)))
    for changes in ({}, {"paused": True}, {"promoted_by": "ann"}):
        failed = saved(decide_canary(canary(**changes), failing, 101.0)).rollout
        assert failed.ending == ROLLED_BACK
        assert (failed.reason or "").startswith("here, canary 5 %: gate errors failed: measured 1")
        assert [window.candidate.users.failed for window in failed.evidence] == [30]


def test_windows_of_this_and_of_other_regions_are_judged_together() -> None:
    bad, sound = counters(answered=85, failed=15), counters(answered=100)
    earlier = [Window(region="there", percent=50, candidate=bad, live=sound)]
    for changes in ({"earlier": earlier}, {"evidence": earlier}):
        failed = saved(decide_canary(canary(regions=2, **changes), ready(EMPTY), 101.0)).rollout
        assert failed.ending == ROLLED_BACK


def test_a_person_may_promote_before_a_step_has_baked() -> None:
    assert saved(decide_canary(canary(promoted_by="ann"), ready(EMPTY), 101.0)).rollout.percent == 50
    assert decide_canary(canary(promoted_by="ann", paused=True), ready(EMPTY), 101.0) == WAIT


def test_a_paused_step_neither_passes_nor_times_out() -> None:
    enough = ready(gateway(new=asked(50), old=asked(100)))
    assert decide_canary(canary(paused=True), enough, 130.0) == WAIT
    assert decide_canary(canary(paused=True), ready(EMPTY), 999.0) == WAIT


def test_a_step_without_enough_requests_is_inconclusive_after_its_time() -> None:
    few = ready(gateway(new=asked(4), old=asked(100)))
    assert decide_canary(canary(), few, BEGAN + 60.0) == WAIT
    held = saved(decide_canary(canary(), few, BEGAN + 60.1))
    assert held == Save(
        rollout=canary(waiting_for="4 of 10 requests"),
        message="holding: 4 of 10 requests; more evidence, promote or abort",
    )
    assert decide_canary(held.rollout, few, BEGAN + 61.0) == WAIT


def test_the_word_back_takes_a_step_back_and_keeps_what_it_counted() -> None:
    rollout = canary(policy=replace(POLICY, on_inconclusive="back"))
    back = saved(decide_canary(rollout, ready(gateway(new=asked(4), old=asked(9))), BEGAN + 61)).rollout
    assert back.reason == "here, canary 5 %: 4 of 10 requests within 60 s, and the policy says back"
    assert [window.candidate.users.answered for window in back.evidence] == [4]
    assert back.steps[-1].gates[0].gate == "requests"


def test_the_word_go_passes_a_step_with_a_note() -> None:
    rollout = canary(policy=replace(POLICY, on_inconclusive="go"))
    gone = saved(decide_canary(rollout, ready(EMPTY), BEGAN + 61)).rollout
    assert (gone.percent, len(gone.evidence)) == (50, 1)
    note = "0 of 10 requests after 60 s: the policy says go"
    went_on = GateResult(gate="verdict", measured=None, allowed=None, unit="", status=INCONCLUSIVE, note=note)
    assert gone.steps[-2].gates[-1] == went_on


@pytest.mark.parametrize(
    ("percent", "plan", "previous", "due"),
    [
        (5, [5, 50, 100], OLD, False),
        (50, [5, 50, 100], OLD, True),
        (100, [5, 50, 100], OLD, False),
        (99, [99, 100], OLD, True),
        (100, [100], OLD, True),
        (50, [5, 50, 100], None, False),
        (100, [5, 50, 100], None, True),
    ],
)
def test_the_verdict_is_due_at_the_last_step_with_a_control(
    percent: int, plan: list[int], previous: str | None, due: bool
) -> None:
    policy = replace(POLICY, required_gates=["refusals"], refusal_margin=1e-4)
    few = counters(answered=6, refused=4)
    rollout = canary(percent, plan=plan, previous=previous, policy=policy, recorded=few)
    action = saved(decide_canary(rollout, ready(gateway(new=few, old=few)), BEGAN + 61))
    assert (action.rollout.waiting_for == "no verdict on refusals") is due
    assert (action.rollout.steps[len(rollout.steps) - 1].finished_at is None) is due


def test_a_verdict_that_has_passed_lets_the_last_controlled_step_go() -> None:
    labels = {"labelled": 5000, "correct": 4900.0}
    policy = replace(POLICY, required_gates=["accuracy"])
    seen = ready(gateway(new=counters(answered=10, **labels), old=counters(answered=10, **labels)))
    assert saved(decide_canary(canary(50, policy=policy), seen, BEGAN + 20)).message == "canary 100 %"


def test_the_last_step_makes_the_candidate_live() -> None:
    rollout = canary(100, recorded=asked(100), weights_at=3.0, waiting_for="requests")
    passed = saved(decide_canary(rollout, ready(gateway(new=asked(10))), 130.0))
    assert (passed.message, passed.live) == ("live", LIVE_NEW)
    live = passed.rollout
    assert (live.state, live.percent, live.finished_at, live.weights_at) == (LIVE, 100, 130.0, None)
    assert (live.waiting_for, live.steps[-1].finished_at, len(live.evidence)) == (None, 130.0, 1)


# Replays

REPLAYS = replace(POLICY, synthetic_after_s=2.0)


def replay(requests: int) -> Do:
    return Do(effect=Effect.REPLAY, requests=requests)


@pytest.mark.parametrize(
    ("waited", "policy", "expected"),
    [(1.9, REPLAYS, WAIT), (2.0, REPLAYS, replay(200)), (30.0, REPLAYS, replay(200)), (30.0, POLICY, WAIT)],
)
def test_replays_begin_after_the_policys_time_without_users(waited: float, policy: object, expected: Do) -> None:
    assert decide_canary(canary(policy=policy), ready(EMPTY), BEGAN + waited) == expected


def test_replays_may_begin_at_once() -> None:
    rollout = canary(policy=replace(POLICY, synthetic_after_s=0.0))
    assert decide_canary(rollout, ready(EMPTY), BEGAN) == replay(200)


@pytest.mark.parametrize(("answered", "percent", "requests"), [(4, 5, 120), (9, 50, 2), (9, 100, 1), (0, 100, 10)])
def test_as_many_are_replayed_as_give_the_candidate_what_it_lacks(answered: int, percent: int, requests: int) -> None:
    rollout = canary(percent, policy=REPLAYS, recorded=asked(100))
    seen = ready(gateway(new=asked(answered), old=asked(100)))
    assert decide_canary(rollout, seen, BEGAN + 2) == replay(requests)


@pytest.mark.parametrize("answered", [10, 12])
def test_a_verdict_that_lacks_evidence_asks_for_a_steps_worth_of_replays(answered: int) -> None:
    rollout = canary(50, policy=replace(REPLAYS, required_gates=["accuracy"]))
    assert decide_canary(rollout, ready(gateway(new=asked(answered), old=asked(9))), BEGAN + 2) == replay(20)


def test_a_step_that_only_bakes_needs_no_replays() -> None:
    assert decide_canary(canary(policy=REPLAYS), ready(gateway(new=asked(10), old=asked(9))), BEGAN + 5) == WAIT


def test_where_nothing_is_live_replays_begin_at_once_and_count() -> None:
    rollout = canary(100, plan=[100], previous=None)
    assert decide_canary(rollout, ready(gateway(new=asked(3))), BEGAN) == replay(7)
    answered = ready(gateway(new=counters(answered=3, synthetic=outcomes(answered=7))))
    passed = saved(decide_canary(rollout, answered, BEGAN + 20))
    assert (passed.message, passed.live) == ("live", replace(LIVE_NEW, previous_release_id=None))


def test_a_held_step_goes_on_asking_for_replays() -> None:
    rollout = canary(policy=REPLAYS, waiting_for="0 of 10 requests")
    assert decide_canary(rollout, ready(EMPTY), BEGAN + 61) == replay(200)


def test_a_backend_is_named_by_release_and_region() -> None:
    assert backend_id(NEW, REGION) == "rel-2@here"
