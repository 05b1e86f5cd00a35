"""The way forward of a rollout, state by state: one observation, one step."""

from dataclasses import replace
from typing import Any

import pytest

from serving.regions.deciding.gates import GateResult, server_failed
from serving.regions.deciding.rollout_decision import decide, finish_golden, finish_replication
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    GOLDEN,
    LIVE,
    QUEUED,
    REPLICATING,
    ROLLED_BACK,
    SHADOW,
    STARTING,
    VERIFIED,
    Action,
    Do,
    Effect,
    Rollout,
    Save,
    Server,
    enter,
)
from tests.fakes.counted import counters
from tests.fakes.rollouts import BEGAN, LIVE_NEW, LIVE_OLD, OLD, POLICY, gateway, ready, rollout_in

STATS = gateway(new=counters(), old=counters(answered=100))
WAIT = Do(effect=Effect.WAIT)


def queued(**changes: Any) -> Rollout:
    return rollout_in(QUEUED, **{"previous": None, "previous_version": None, "steps": [], "plan": [], **changes})


def saved(action: Action) -> Save:
    assert isinstance(action, Save)
    return action


def reason(action: Action) -> str:
    return saved(action).rollout.reason or ""


# Which way


def test_what_goes_back_is_decided_there_whatever_else_is_asked() -> None:
    back = rollout_in(CANARY, percent=5, ending=ROLLED_BACK, abort="enough")
    assert decide(back, ready(STATS), 120.0) == Do(effect=Effect.RESTORE_WEIGHTS)


def test_a_live_rollout_is_aborted_no_more() -> None:
    assert decide(rollout_in(LIVE, abort="late"), ready(STATS), 120.0) == Do(effect=Effect.SHIFT_WEIGHTS)


@pytest.mark.parametrize("state", [QUEUED, REPLICATING, VERIFIED, STARTING, GOLDEN, SHADOW, CANARY])
def test_an_abort_stops_a_rollout_in_any_state_before_live(state: str) -> None:
    aborted = saved(decide(rollout_in(state, abort="enough"), ready(STATS, candidate=Server.FAILED), 120.0))
    assert (aborted.message, aborted.live) == ("aborting: enough", None)
    assert (aborted.rollout.ending, aborted.rollout.reason) == (ABORTED, "enough")
    assert aborted.rollout.steps[-1].finished_at == 120.0


def test_the_bundle_is_copied_and_then_the_server_starts() -> None:
    assert decide(rollout_in(REPLICATING), ready(STATS), 120.0) == Do(effect=Effect.REPLICATE)
    verified = finish_replication(rollout_in(REPLICATING), 120.0)
    assert verified == enter(rollout_in(REPLICATING), VERIFIED, 120.0)
    begun = Save(rollout=enter(verified, STARTING, 121.0), message="starting the candidate's server")
    assert decide(verified, ready(STATS), 121.0) == begun


@pytest.mark.parametrize("state", [GOLDEN, SHADOW, CANARY])
@pytest.mark.parametrize(
    ("candidate", "note", "why"),
    [(Server.FAILED, "exited with 1", "exited with 1"), (Server.ABSENT, "", "its process is gone")],
)
def test_a_server_that_ends_fails_the_rollout(state: str, candidate: Server, note: str, why: str) -> None:
    rollout = rollout_in(state, percent=5)
    failed = decide(rollout, ready(STATS, candidate=candidate, candidate_note=note), 120.0)
    assert reason(failed).endswith(f": gate server failed: the candidate's server ended: {why}")


def test_shadow_and_canary_are_decided_in_their_own_room() -> None:
    shadow = rollout_in(SHADOW, baseline=STATS, policy=replace(POLICY, shadow_s=1.0, on_inconclusive="back"))
    assert "compared in the shadow" in reason(decide(shadow, ready(STATS), 200.0))
    canary = rollout_in(CANARY, percent=5, baseline=STATS, policy=replace(POLICY, on_inconclusive="back"))
    assert "0 of 10 requests within" in reason(decide(canary, ready(STATS), 200.0))
    assert decide(rollout_in(CANARY, percent=5), ready(STATS, candidate=Server.STARTING), 120.0) == Do(
        effect=Effect.SHIFT_WEIGHTS
    )


# Leaving the queue


def test_a_rollout_leaves_the_queue_with_what_was_live_and_counted() -> None:
    left = replace(queued(), previous=OLD, previous_version=1, opening=STATS)
    standing_by = replace(LIVE_OLD, standby="rel-0", standby_until=999.0)
    assert decide(queued(), ready(STATS, live=standing_by), 120.0) == Save(
        rollout=enter(left, REPLICATING, 120.0), message="copying the bundle", live=LIVE_OLD
    )


@pytest.mark.parametrize("live", [None, replace(LIVE_OLD, release_id=None)])
def test_where_nothing_is_live_there_is_no_version_before(live: Any) -> None:
    left = replace(queued(), opening=STATS)
    assert decide(queued(), ready(STATS, live=live), 120.0) == Save(
        rollout=enter(left, REPLICATING, 120.0), message="copying the bundle", live=live
    )


def test_a_release_that_is_live_already_changes_nothing() -> None:
    assert decide(queued(), ready(STATS, live=LIVE_NEW, live_version=2), 120.0) == Save(
        rollout=replace(
            queued(),
            state=LIVE,
            changed=False,
            settled=True,
            previous="rel-2",
            previous_version=2,
            finished_at=120.0,
        ),
        message="live already, nothing to do",
    )


def test_a_region_in_trouble_is_not_changed() -> None:
    trouble = gateway(old=counters(answered=150, failed=50))
    failed = saved(decide(queued(), ready(trouble, recent=trouble), 120.0))
    assert failed.live is None
    assert (failed.rollout.state, failed.rollout.previous) == (ROLLED_BACK, None)
    assert (failed.rollout.reason or "").startswith("here, queued: gate error budget failed: measured 0.25")
    unknown = saved(decide(queued(), ready(None), 120.0)).rollout
    assert (unknown.state, unknown.opening) == (REPLICATING, None)
    nobody = gateway(new=counters(failed=99))
    assert saved(decide(queued(), ready(nobody, live=None, recent=nobody), 120.0)).rollout.state == REPLICATING


# Starting and the golden set


@pytest.mark.parametrize(
    ("candidate", "now", "effect"),
    [
        (Server.ABSENT, BEGAN, Effect.LAUNCH),
        (Server.ABSENT, BEGAN + 60, Effect.LAUNCH),
        (Server.STARTING, BEGAN + 60, Effect.WAIT),
    ],
)
def test_the_server_is_started_and_waited_for(candidate: Server, now: float, effect: Effect) -> None:
    assert decide(rollout_in(STARTING), ready(STATS, candidate=candidate), now) == Do(effect=effect)


def test_a_server_that_is_ready_is_checked_unless_it_is_held() -> None:
    starting = rollout_in(STARTING)
    checking = Save(rollout=enter(starting, GOLDEN, 999.0), message="server is ready, checking the golden set")
    assert decide(starting, ready(STATS), 999.0) == checking
    assert decide(replace(starting, held=True), ready(STATS), 999.0) == WAIT


def test_a_server_that_does_not_start_fails_the_rollout() -> None:
    ended = ready(STATS, candidate=Server.FAILED, candidate_note="exited with 1")
    did_not_start = "here, starting: gate server failed: the candidate's server did not start: exited with 1"
    assert reason(decide(rollout_in(STARTING), ended, 101.0)) == did_not_start
    late = decide(rollout_in(STARTING), ready(STATS, candidate=Server.STARTING), BEGAN + 60.1)
    not_ready = "here, starting: gate server failed: the candidate's server was not ready within 60 s"
    assert reason(late) == not_ready


def test_the_golden_set_is_asked_of_a_server_that_answers() -> None:
    assert decide(rollout_in(GOLDEN), ready(STATS), 999.0) == Do(effect=Effect.CHECK_GOLDEN)
    assert decide(rollout_in(GOLDEN, paused=True), ready(STATS), 999.0) == WAIT
    silent = ready(STATS, candidate=Server.STARTING)
    assert decide(rollout_in(GOLDEN), silent, BEGAN + 60) == WAIT
    assert reason(decide(rollout_in(GOLDEN), silent, BEGAN + 60.1)) == (
        "here, golden: gate server failed: the candidate's server stopped answering"
    )


@pytest.mark.parametrize(
    ("previous", "elsewhere", "plan"),
    [(OLD, False, [5, 50, 100]), (OLD, True, [5, 50, 100]), (None, True, [5, 50, 100]), (None, False, [100])],
)
def test_a_first_release_shares_only_with_a_region_that_has_it(
    previous: str | None, elsewhere: bool, plan: list[int]
) -> None:
    passed = [GateResult(gate="golden", measured=1.0, allowed=0.9, unit="accuracy", status="passed")]
    seen = ready(STATS, served_elsewhere=elsewhere)
    begun = finish_golden(rollout_in(GOLDEN, previous=previous, plan=[]), passed, seen, 120.0).rollout
    assert (begun.state, begun.percent, begun.plan) == (CANARY, plan[0], plan)
    assert (begun.steps[2].gates, begun.steps[2].finished_at) == (passed, 120.0)
    assert begun.plan is not POLICY.steps_percent


def test_a_golden_set_that_fails_takes_the_rollout_back() -> None:
    failed = finish_golden(rollout_in(GOLDEN), [server_failed("nonsense")], ready(STATS), 120.0).rollout
    assert (failed.state, failed.reason) == (ROLLED_BACK, "here, golden: gate server failed: nonsense")


def test_a_server_that_is_held_may_take_its_time_to_come_back() -> None:
    held = rollout_in(STARTING, held=True)
    assert decide(held, ready(None, candidate=Server.STARTING), 99_999.0) == Do(effect=Effect.WAIT)
    assert decide(held, ready(None, candidate=Server.ABSENT), 99_999.0) == Do(effect=Effect.LAUNCH)
