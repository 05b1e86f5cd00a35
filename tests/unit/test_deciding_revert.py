"""How a rollout is taken back: weights first, the server that lost after that, and what is said of it."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Snapshot
from serving.regions.deciding.evidence import Window
from serving.regions.deciding.gates import INCONCLUSIVE, PASSED, GateResult, server_failed
from serving.regions.deciding.rollout_revert import (
    begin_revert,
    decide_revert,
    fail,
    fail_replication,
    overrule,
    request_revert,
    revert_inconclusive,
    take_back,
    weights_restored,
)
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    LIVE,
    QUEUED,
    ROLLED_BACK,
    SHADOW,
    STARTING,
    Do,
    Effect,
    Rollout,
    Save,
    Server,
    Step,
)
from serving.regions.registry.registry import LiveModel
from tests.fakes.counted import counters
from tests.fakes.rollouts import BEGAN, LIVE_NEW, LIVE_OLD, OLD, gateway, ready, rollout_in

WAIT, STOP, RESTORE = Do(effect=Effect.WAIT), Do(effect=Effect.STOP_CANDIDATE), Do(effect=Effect.RESTORE_WEIGHTS)
WINDOW = Window(region="here", percent=5, candidate=counters(answered=4), live=counters(answered=9))
BAD = [
    GateResult(gate="requests", measured=4.0, allowed=10.0, unit="requests", status=PASSED),
    server_failed("it ended"),
    server_failed("it hung"),
]


def closed(rollout: Rollout, now: float, **last: Any) -> list[Step]:
    return [*rollout.steps[:-1], replace(rollout.steps[-1], finished_at=now, **last)]


# Beginnings


@pytest.mark.parametrize("state", [SHADOW, CANARY, LIVE])
def test_what_had_traffic_keeps_its_state_until_the_weights_are_back(state: str) -> None:
    rollout = rollout_in(state, weights_at=3.0)
    assert begin_revert(rollout, ABORTED, "enough", 120.0) == replace(
        rollout, steps=closed(rollout, 120.0), ending=ABORTED, reason="enough", weights_at=None
    )


def test_what_never_had_traffic_is_over_at_once() -> None:
    rollout = rollout_in(STARTING)
    assert begin_revert(rollout, ROLLED_BACK, "no server", 120.0) == replace(
        rollout,
        steps=closed(rollout, 120.0),
        state=ROLLED_BACK,
        ending=ROLLED_BACK,
        reason="no server",
        finished_at=120.0,
        weights_at=120.0,
    )


@pytest.mark.parametrize(
    "rollout",
    [
        rollout_in(CANARY, percent=5, ending=ABORTED),
        rollout_in(LIVE, ending=ROLLED_BACK),
        rollout_in(ROLLED_BACK),
        rollout_in(ABORTED),
        rollout_in(LIVE, changed=False),
    ],
)
def test_there_is_nothing_to_take_back_twice(rollout: Rollout) -> None:
    assert request_revert(rollout, LIVE_NEW, "late", 120.0) == rollout


def test_a_rollout_under_way_is_aborted() -> None:
    rollout = rollout_in(CANARY, percent=5)
    assert request_revert(rollout, LIVE_OLD, "enough", 120.0) == replace(rollout, abort="enough")
    assert request_revert(replace(rollout, changed=False), None, "enough", 120.0).abort == "enough"


@pytest.mark.parametrize("live", [None, LIVE_OLD])
def test_a_version_that_is_no_longer_live_has_nothing_to_put_back(live: LiveModel | None) -> None:
    rollout = rollout_in(LIVE)
    assert request_revert(rollout, live, "late", 120.0) == replace(
        rollout, state=ROLLED_BACK, reason="late", settled=True
    )


def test_a_live_version_is_taken_back_in_a_step_of_its_own() -> None:
    rollout = rollout_in(LIVE, settled=True, revert_failure="once", finished_at=110.0, weights_at=110.0)
    step = Step(state=STARTING, percent=None, started_at=120.0)
    assert request_revert(rollout, LIVE_NEW, "it is bad", 120.0) == replace(
        rollout,
        steps=[*closed(rollout, 120.0), step],
        ending=ROLLED_BACK,
        reason="it is bad",
        reverting=True,
        settled=False,
        revert_failure=None,
        finished_at=None,
        weights_at=None,
    )


# Reasons


def test_a_failure_names_its_place_and_every_gate_and_keeps_the_window() -> None:
    rollout = rollout_in(CANARY, percent=5)
    reason = "here, canary 5 %: gate server failed: it ended; gate server failed: it hung"
    failed = fail(rollout, BAD, 120.0, WINDOW)
    assert (failed.message, failed.live) == (f"rolling back: {reason}", None)
    assert (failed.rollout.reason, failed.rollout.ending, failed.rollout.evidence) == (reason, ROLLED_BACK, [WINDOW])
    assert failed.rollout.steps == closed(rollout, 120.0, gates=BAD, requests=4)
    early = fail(rollout_in(STARTING), BAD, 120.0).rollout
    assert (early.state, early.evidence) == (ROLLED_BACK, [])
    assert (early.reason or "").startswith("here, starting: gate server failed")


def test_what_is_inconclusive_is_taken_back_with_what_it_lacked() -> None:
    rollout = rollout_in(CANARY, percent=5)
    gates = [replace(BAD[0], status=INCONCLUSIVE)]
    back = revert_inconclusive(rollout, gates, "4 of 10 requests", 120.0, WINDOW)
    reason = "here, canary 5 %: 4 of 10 requests within 60 s, and the policy says back"
    assert (back.message, back.rollout.reason) == (f"rolling back: {reason}", reason)
    assert (back.rollout.ending, back.rollout.evidence) == (ROLLED_BACK, [WINDOW])
    assert back.rollout.steps == closed(rollout, 120.0, gates=gates, requests=4)


def test_a_bundle_that_is_not_to_be_had_rolls_back() -> None:
    back = fail_replication(rollout_in("replicating"), "corrupt", 120.0)
    assert back.rollout.reason == "here, replicating: corrupt"
    assert back.message == "rolling back: here, replicating: corrupt"
    assert (back.rollout.state, back.rollout.finished_at) == (ROLLED_BACK, 120.0)


def test_a_first_release_leaves_the_model_known_with_nothing_live() -> None:
    first = rollout_in(CANARY, previous=None, reason="it is bad")
    nothing = LiveModel(model="m", release_id=None, previous_release_id=None, reason="it is bad")
    assert take_back(first, "back") == Save(rollout=first, message="back", live=nothing)
    second = replace(first, previous=OLD)
    assert take_back(second, "back") == Save(rollout=second, message="back")
    queued = replace(first, steps=[])
    assert take_back(queued, "back") == Save(rollout=queued, message="back")


# Going back


def taken_back(**changes: Any) -> Rollout:
    """The weights are back since 200 s."""
    facts = {"percent": 5, "ending": ROLLED_BACK, "weights_at": 200.0, "finished_at": 200.0, **changes}
    return rollout_in(CANARY, **facts)


def reverting(**changes: Any) -> Rollout:
    """Live before, its last step began at `BEGAN`."""
    facts = {"ending": ROLLED_BACK, "reverting": True, "reason": "it is bad", **changes}
    return rollout_in(LIVE, percent=100, **facts)


BUSY = gateway(new=counters(in_flight=1))


def test_weights_go_back_before_the_candidate_stops() -> None:
    assert decide_revert(taken_back(weights_at=None), ready(BUSY), 210.0) == RESTORE
    assert decide_revert(taken_back(weights_at=None, reverting=True), ready(BUSY, live=None), 210.0) == RESTORE
    assert decide_revert(taken_back(weights_at=None, reverting=True), ready(BUSY), 210.0) == RESTORE
    assert decide_revert(reverting(reverting=False), ready(BUSY, live=LIVE_NEW), 210.0) == RESTORE


@pytest.mark.parametrize("candidate", [Server.READY, Server.STARTING])
def test_a_candidate_finishes_what_it_has_begun(candidate: Server) -> None:
    for rollout in (taken_back(), taken_back(steps=[Step(state=SHADOW, percent=None, started_at=BEGAN)])):
        assert decide_revert(rollout, ready(BUSY, candidate=candidate), 204.9) == WAIT
        assert decide_revert(rollout, ready(None, candidate=candidate), 204.9) == WAIT
        assert decide_revert(rollout, ready(BUSY, candidate=candidate), 205.0) == STOP
    quiet: Snapshot = gateway(new=counters())
    assert decide_revert(taken_back(), ready(quiet, candidate=candidate), 200.0) == STOP


@pytest.mark.parametrize("candidate", [Server.ABSENT, Server.FAILED])
def test_a_candidate_that_has_ended_is_stopped_at_once(candidate: Server) -> None:
    assert decide_revert(taken_back(), ready(BUSY, candidate=candidate), 201.0) == STOP


def test_a_candidate_that_never_served_is_stopped_at_once() -> None:
    never = [Step(state=STARTING, percent=None, started_at=BEGAN)]
    assert decide_revert(taken_back(steps=never), ready(BUSY), 201.0) == STOP
    assert decide_revert(taken_back(finished_at=None), ready(BUSY), 201.0) == STOP


def live_again(rollout: Rollout, release: str | None, before: str | None, reason: str | None) -> Save:
    live = LiveModel(model="m", release_id=release, previous_release_id=before, reason=reason)
    return Save(rollout=rollout, message="the version before is live again", live=live)


def test_the_version_before_is_live_again_once_it_answers() -> None:
    seen = ready(BUSY, live=LIVE_NEW, before_previous="rel-0")
    assert decide_revert(reverting(), seen, 999.0) == live_again(reverting(), OLD, "rel-0", None)
    first, gone = reverting(previous=None), replace(seen, previous=Server.ABSENT, before_previous=None)
    assert decide_revert(first, gone, 110.0) == live_again(first, None, None, "it is bad")


@pytest.mark.parametrize(
    ("previous", "now", "effect"),
    [
        (Server.ABSENT, BEGAN + 60, Effect.LAUNCH_PREVIOUS),
        (Server.FAILED, BEGAN + 60, Effect.LAUNCH_PREVIOUS),
        (Server.STARTING, BEGAN + 60, Effect.WAIT),
        (Server.STARTING, BEGAN, Effect.WAIT),
    ],
)
def test_the_version_before_is_started_and_waited_for(previous: Server, now: float, effect: Effect) -> None:
    seen = ready(BUSY, live=LIVE_NEW, previous=previous)
    assert decide_revert(reverting(), seen, now) == Do(effect=effect)


@pytest.mark.parametrize(
    ("previous", "degraded", "now", "note", "why"),
    [
        (Server.FAILED, True, BEGAN + 1, "exited with 1", "exited with 1"),
        (Server.FAILED, False, BEGAN + 60.1, "exited with 1", "exited with 1"),
        (Server.STARTING, False, BEGAN + 60.1, "", "it was not ready in time"),
        (Server.ABSENT, False, BEGAN + 60.1, "", "it was not ready in time"),
    ],
)
def test_a_version_before_that_does_not_start_leaves_the_new_one_live(
    previous: Server, degraded: bool, now: float, note: str, why: str
) -> None:
    rollout = reverting()
    failure = f"here keeps version 2: the version before did not start again: {why}"
    seen = ready(BUSY, live=LIVE_NEW, previous=previous, previous_note=note, previous_degraded=degraded)
    kept = replace(
        rollout,
        steps=closed(rollout, now),
        ending=None,
        reverting=False,
        reason=failure,
        revert_failure=failure,
        weights_at=now,
        finished_at=now,
        settled=True,
    )
    assert decide_revert(rollout, seen, now) == Save(rollout=kept, message=failure)


def test_restored_weights_end_the_rollout_as_far_as_users_can_tell() -> None:
    rollout = rollout_in(CANARY, percent=5, ending=ABORTED)
    assert weights_restored(rollout, 120.0) == replace(
        rollout, steps=closed(rollout, 120.0), state=ABORTED, percent=None, weights_at=120.0, finished_at=120.0
    )


# Overruled


@pytest.mark.parametrize("state", [LIVE, ROLLED_BACK, ABORTED])
def test_a_rollout_that_is_over_is_only_settled_by_a_rollback(state: str) -> None:
    rollout = rollout_in(state)
    assert overrule(rollout, "rollback b", 120.0) == replace(rollout, settled=True)


@pytest.mark.parametrize(
    ("rollout", "state", "reason"),
    [
        (rollout_in(CANARY, percent=5), ABORTED, "rollback b"),
        (rollout_in(QUEUED), ABORTED, "rollback b"),
        (rollout_in(CANARY, percent=5, ending=ROLLED_BACK, reason="it is bad"), ROLLED_BACK, "it is bad"),
        (rollout_in(LIVE, percent=100, reverting=True, ending=ROLLED_BACK), ROLLED_BACK, "rollback b"),
    ],
)
def test_a_rollback_ends_a_rollout_under_way(rollout: Rollout, state: str, reason: str) -> None:
    assert overrule(rollout, "rollback b", 120.0) == replace(
        rollout,
        steps=closed(rollout, 120.0),
        state=state,
        ending=state,
        reason=reason,
        percent=None,
        weights_at=120.0,
        finished_at=120.0,
        settled=True,
    )
