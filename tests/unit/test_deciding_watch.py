"""What a live rollout does until it is settled: it drains, watches, and lets the old server stand by."""

from dataclasses import replace

import pytest

from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import LIVE, ROLLED_BACK, WATCH, Do, Effect, Rollout, Save, Server, Step
from serving.regions.deciding.watch_decision import decide_live
from tests.fakes.counted import counters, outcomes
from tests.fakes.rollouts import LIVE_NEW, LIVE_OLD, OLD, POLICY, gateway, ready, rollout_in

RECORDED = counters(answered=1000)
QUIET = gateway(new=counters(), old=counters())
WAIT, STOP = Do(effect=Effect.WAIT), Do(effect=Effect.STOP_PREVIOUS)


def live(**changes: object) -> Rollout:
    """Live since 200 s, its weights in force, its last step over."""
    made = rollout_in(LIVE, percent=100, weights_at=200.0, finished_at=200.0)
    return replace(made, **{"steps": made.steps[:2], "recorded": RECORDED, **changes})


def watching(**changes: object) -> Rollout:
    made = live(policy=replace(POLICY, watch_s=60.0), watch_until=300.0, baseline=QUIET)
    return replace(made, **{"steps": [*made.steps, WATCHED], **changes})


WATCHED = Step(state=WATCH, percent=None, started_at=240.0)


def test_final_weights_come_before_anything_else() -> None:
    assert decide_live(live(weights_at=None), ready(QUIET), 210.0) == Do(effect=Effect.SHIFT_WEIGHTS)


def test_the_old_server_finishes_what_it_has_begun() -> None:
    busy = gateway(new=counters(), old=counters(in_flight=1))
    assert decide_live(live(), ready(busy, live=LIVE_NEW), 204.9) == WAIT
    assert decide_live(live(), ready(busy, live=LIVE_NEW), 205.0) == STOP
    assert decide_live(live(), ready(QUIET, live=LIVE_NEW), 200.0) == STOP
    assert decide_live(live(previous=None, recorded=None), ready(None, live=LIVE_NEW), 200.0) == STOP


# The watch


@pytest.mark.parametrize("watch_s", [0.5, 60.0])
def test_a_watch_begins_with_a_step_of_its_own(watch_s: float) -> None:
    rollout = live(policy=replace(POLICY, watch_s=watch_s))
    step = Step(state=WATCH, percent=None, started_at=210.0)
    assert decide_live(rollout, ready(QUIET), 210.0) == Save(
        rollout=replace(rollout, watch_until=210.0 + watch_s, baseline=QUIET, steps=[*rollout.steps, step]),
        message=f"watched for {watch_s:g} s",
    )


def test_nothing_is_watched_without_time_a_record_or_patience() -> None:
    policy = replace(POLICY, watch_s=60.0)
    assert decide_live(live(policy=POLICY), ready(QUIET), 210.0) == STOP
    assert decide_live(live(policy=policy, recorded=None), ready(QUIET), 210.0) == STOP
    assert decide_live(live(policy=policy), ready(QUIET, superseded=True), 210.0) == STOP


def test_a_watch_waits_for_the_gateway_and_for_its_time() -> None:
    assert decide_live(watching(watch_until=None), ready(None), 250.0) == WAIT
    assert decide_live(watching(), ready(None), 350.0) == WAIT
    sound = ready(gateway(new=counters(answered=50)))
    assert decide_live(watching(), sound, 299.9) == WAIT


def test_a_watch_that_ends_well_is_kept_with_its_gates_and_counts() -> None:
    over = decide_live(watching(), ready(gateway(new=counters(answered=50))), 300.0)
    assert isinstance(over, Save)
    assert over.message == "the watch is over"
    last, window = over.rollout.steps[-1], over.rollout.evidence[-1]
    assert (last.finished_at, last.requests, last.gates[0].gate) == (300.0, 50, "errors")
    assert (window.region, window.percent, window.live, window.recorded) == ("here", 100, RECORDED, True)
    assert (window.candidate.users.answered, window.replays_count) == (50, False)
    assert decide_live(over.rollout, ready(gateway(new=counters(answered=50)), superseded=True), 301.0) == STOP


def test_a_watch_counts_from_its_own_baseline() -> None:
    before = gateway(new=counters(failed=40))
    rollout = watching(baseline=before)
    assert decide_live(rollout, ready(before), 250.0) == WAIT


def test_replays_count_in_a_watch_only_if_the_policy_says_so() -> None:
    failing = ready(gateway(new=counters(synthetic=outcomes(failed=60))), live=LIVE_NEW)
    assert decide_live(watching(), failing, 250.0) == WAIT
    policy = replace(POLICY, watch_s=60.0, synthetic_evidence=True, synthetic_after_s=0.0)
    back = decide_live(watching(policy=policy), failing, 250.0)
    assert isinstance(back, Save)
    assert back.rollout.evidence[-1].replays_count is True


def test_a_watched_version_that_turns_bad_is_taken_back() -> None:
    failing = ready(gateway(new=counters(failed=60)), live=LIVE_NEW)
    back = decide_live(watching(), failing, 250.0)
    assert isinstance(back, Save)
    reason = back.rollout.reason or ""
    assert reason.startswith("here, after it went live: gate errors failed: measured 1, allowed at most 0.01 points")
    assert back.message == f"rolling back: {reason}"
    assert (back.rollout.ending, back.rollout.reverting) == (ROLLED_BACK, True)
    worse = decide_live(watching(), ready(gateway(new=counters(failed=60, refused=60)), live=LIVE_NEW), 250.0)
    assert isinstance(worse, Save)
    assert "as recorded before); gate refusals failed: " in worse.message
    assert back.rollout.steps[2].finished_at == 250.0
    assert back.rollout.steps[2].requests == 60
    assert back.rollout.evidence[-1].candidate.users.failed == 60


# The standby


def standby(**changes: object) -> Rollout:
    return live(**{"policy": replace(POLICY, standby_s=0.5), **changes})


def test_an_old_server_that_answers_stands_by() -> None:
    rollout = standby(steps=[WATCHED])
    settled = replace(rollout, settled=True, steps=[replace(WATCHED, finished_at=210.0)])
    assert decide_live(rollout, ready(QUIET, live=LIVE_NEW), 210.0) == Save(
        rollout=settled,
        message="settled; rel-1 stands by for 0.5 s",
        live=replace(LIVE_NEW, standby=OLD, standby_until=210.5),
    )


@pytest.mark.parametrize("previous", [Server.ABSENT, Server.STARTING, Server.FAILED])
def test_a_server_that_does_not_answer_cannot_stand_by(previous: Server) -> None:
    assert decide_live(standby(), ready(QUIET, live=LIVE_NEW, previous=previous), 210.0) == STOP


@pytest.mark.parametrize("now_live", [None, LIVE_OLD])
def test_nothing_stands_by_for_a_version_that_is_no_longer_live(now_live: object) -> None:
    assert decide_live(standby(), ready(QUIET, live=now_live), 210.0) == STOP


def test_a_policy_without_a_standby_stops_the_old_server() -> None:
    policy: PromotionPolicy = replace(POLICY, standby_s=0.0)
    assert decide_live(live(policy=policy), ready(QUIET, live=LIVE_NEW), 210.0) == STOP


def test_an_open_step_is_closed_before_the_old_server_is_stopped() -> None:
    rollout = live(steps=[WATCHED])
    closed = replace(rollout, steps=[replace(WATCHED, finished_at=210.0)])
    assert decide_live(rollout, ready(QUIET), 210.0) == Save(rollout=closed, message="the watch is over")
    assert decide_live(closed, ready(QUIET), 211.0) == STOP
