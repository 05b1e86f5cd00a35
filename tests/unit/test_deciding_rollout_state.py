"""The vocabulary of a rollout: names, defaults, what it derives, and how a step is entered and closed."""

from dataclasses import replace
from typing import Any

import pytest

from serving.counters import Counters, Snapshot
from serving.regions.deciding import rollout_state
from serving.regions.deciding.evidence import Window
from serving.regions.deciding.gates import server_failed
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    GOLDEN,
    LIVE,
    QUEUED,
    ROLLED_BACK,
    SHADOW,
    STARTING,
    Do,
    Effect,
    Observation,
    Rollout,
    Server,
    Step,
    backend_id,
    close,
    drained,
    enter,
    pause,
    release_hold,
    resume,
    same_phase,
)
from tests.fakes.counted import counters, outcomes
from tests.fakes.rollouts import OLD, POLICY, gateway, make_release, rollout_in


def test_states_are_named_as_the_api_has_them() -> None:
    assert (
        *("queued", "replicating", "verified", "starting", "golden", "shadow", "canary", "live"),
        *("rolled_back", "aborted"),
    ) == rollout_state.STATES
    assert {"live", "rolled_back", "aborted"} == rollout_state.TERMINAL
    assert rollout_state.WATCH == "watch"
    assert [server.value for server in Server] == ["absent", "starting", "ready", "failed"]


def test_effects_are_named_for_the_journal() -> None:
    assert [effect.value for effect in Effect] == [
        "replicate",
        "launch the candidate",
        "check the golden set",
        "shift weights",
        "replay golden inputs",
        "launch the previous release",
        "put the old weights back",
        "stop the candidate",
        "stop the previous release",
        "wait",
    ]


def test_a_new_rollout_waits_and_has_done_nothing() -> None:
    new = Rollout(id="p", region="here", release=make_release(), version=2, policy=POLICY)
    assert new.to_json() == {
        "id": "p",
        "region": "here",
        "release": make_release().to_json(),
        "version": 2,
        "policy": POLICY.to_json(),
        "state": QUEUED,
        "percent": None,
        "plan": [],
        "baseline": None,
        "steps": [],
        "actor": "",
        "regions": 1,
        "earlier": [],
        "evidence": [],
        "scores": {"count": 0, "total": 0.0},
        "opening": None,
        "recorded": None,
        "watch_until": None,
        "paused": False,
        "paused_at": None,
        "promoted_by": None,
        "waiting_for": None,
        "previous": None,
        "previous_version": None,
        "held": False,
        "changed": True,
        "abort": None,
        "ending": None,
        "reverting": False,
        "revert_failure": None,
        "reason": None,
        "weights_at": None,
        "settled": False,
        "started_at": 0.0,
        "finished_at": None,
    }


def test_what_was_not_observed_is_not_there() -> None:
    seen = Observation(candidate=Server.READY)
    assert (seen.candidate_note, seen.previous, seen.previous_note) == ("", Server.ABSENT, "")
    assert (seen.live, seen.live_version, seen.before_previous, seen.stats) == (None, None, None, None)
    assert (seen.superseded, seen.served_elsewhere) == (False, False)
    assert Do(effect=Effect.WAIT).requests == 0
    step = Step(state=GOLDEN, percent=None, started_at=1.0)
    assert (step.finished_at, step.requests, step.synthetic, step.gates) == (None, 0, 0, [])


# What it derives


@pytest.mark.parametrize(
    ("state", "ending", "percent"),
    [(CANARY, None, 25), (SHADOW, None, 0), (CANARY, ROLLED_BACK, None), (SHADOW, ABORTED, None), (LIVE, None, None)],
)
def test_a_candidate_has_a_weight_only_beside_the_live_version(
    state: str, ending: str | None, percent: int | None
) -> None:
    assert rollout_in(state, percent=25, ending=ending).candidate_percent == percent


def test_replays_count_where_the_policy_says_so_or_nobody_is_served() -> None:
    takes = replace(POLICY, synthetic_evidence=True, synthetic_after_s=0.0)
    assert not rollout_in(CANARY).replays_count
    assert rollout_in(CANARY, policy=takes).replays_count
    assert rollout_in(CANARY, previous=None).replays_count


def test_a_live_rollout_is_watched_until_it_is_settled_or_taken_back() -> None:
    assert rollout_in(LIVE, watch_until=1.0).watching
    for changes in ({"settled": True}, {"ending": ROLLED_BACK}, {"watch_until": None}):
        assert not rollout_in(LIVE, **{"watch_until": 1.0, **changes}).watching
    assert not rollout_in(CANARY, watch_until=1.0).watching


def test_windows_of_other_regions_come_before_its_own() -> None:
    first, second = (Window(region=name, percent=5, candidate=Counters(), live=None) for name in ("there", "here"))
    assert rollout_in(CANARY, earlier=[first], evidence=[second]).windows == [first, second]


def test_a_backend_is_named_by_release_and_region() -> None:
    assert backend_id("rel-2", "here") == "rel-2@here"


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"waiting_for": "x", "paused": True}, True),
        ({"state": LIVE}, False),
        ({"percent": 25}, False),
        ({"ending": ABORTED}, False),
        ({"reverting": True}, False),
        ({"steps": []}, False),
    ],
)
def test_an_outcome_counts_in_the_phase_in_which_it_was_begun(changes: dict[str, Any], same: bool) -> None:
    before = rollout_in(CANARY, percent=5)
    assert same_phase(before, replace(before, **changes)) is same


@pytest.mark.parametrize(
    ("stats", "now", "quiet"),
    [
        (gateway(old=counters()), 200.0, True),
        (gateway(old=counters(in_flight=1)), 204.9, False),
        (gateway(new=counters()), 204.9, False),
        (None, 204.9, False),
        (gateway(old=counters(in_flight=1)), 205.0, True),
        (None, 205.0, True),
    ],
)
def test_a_server_has_drained_when_it_is_quiet_or_out_of_time(stats: Snapshot | None, now: float, quiet: bool) -> None:
    assert drained(rollout_in(LIVE, weights_at=200.0), OLD, stats, now) is quiet


def test_nothing_drains_by_time_before_its_weights_are_in_force() -> None:
    assert not drained(rollout_in(LIVE), OLD, None, 999.0)


# Steps


def test_a_step_is_entered_once_the_one_before_is_closed() -> None:
    before = rollout_in(GOLDEN)
    entered = enter(before, CANARY, 120.0, 25)
    first = replace(before.steps[2], finished_at=120.0)
    step = Step(state=CANARY, percent=25, started_at=120.0)
    assert entered == replace(before, state=CANARY, percent=25, steps=[*before.steps[:2], first, step])
    assert enter(entered, LIVE, 130.0).percent is None


def test_a_step_is_closed_once_with_what_it_counted() -> None:
    rollout = rollout_in(CANARY, percent=5)
    candidate = counters(answered=7, overdue=2, in_flight=2, synthetic=outcomes(answered=3))
    window = Window(region="here", percent=5, candidate=candidate, live=None)
    gates = [server_failed("it ended")]
    closed = close(rollout, gates, 120.0, window)
    last = replace(rollout.steps[2], finished_at=120.0, gates=gates, requests=12, synthetic=3)
    assert closed == replace(rollout, steps=[*rollout.steps[:2], last], evidence=[window.ended])
    assert close(closed, [], 130.0, window) == closed
    assert close(replace(rollout, steps=[]), gates, 120.0, window) == replace(rollout, steps=[])


def test_a_step_without_a_window_counts_nothing() -> None:
    rollout = rollout_in(GOLDEN, evidence=[])
    closed = close(rollout, [], 120.0)
    assert (closed.steps[2].requests, closed.steps[2].synthetic, closed.evidence) == (0, 0, [])


def test_the_time_of_a_pause_counts_neither_as_baking_nor_against_the_step() -> None:
    began = rollout_in(CANARY, percent=5)
    paused = pause(began, 130.0)
    assert (paused.paused, paused.paused_at) == (True, 130.0)
    resumed = resume(paused, 190.0)
    assert (resumed.paused, resumed.paused_at) == (False, None)
    assert resumed.steps[-1].started_at == began.steps[-1].started_at + 60.0
    assert resumed.steps[:-1] == began.steps[:-1]
    assert resume(pause(rollout_in(QUEUED, steps=[]), 1.0), 2.0).steps == []


def test_a_closed_step_keeps_its_time_through_a_pause() -> None:
    done = close(rollout_in(GOLDEN), [], 120.0)
    assert resume(pause(done, 130.0), 190.0).steps == done.steps


def test_a_servers_time_to_start_begins_when_its_turn_comes() -> None:
    held = rollout_in(STARTING, held=True)
    released = release_hold(held, 5_000.0)
    assert (released.held, released.steps[-1].started_at) == (False, 5_000.0)
    assert release_hold(rollout_in(QUEUED, held=True, steps=[]), 5.0) == rollout_in(QUEUED, steps=[])
