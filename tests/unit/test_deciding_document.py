"""A rollout as JSON: what agents of different ages write, order and are shown."""

from dataclasses import replace
from typing import Any

import pytest

from serving.errors import InvalidInput
from serving.regions.deciding.evidence import Scores, Window
from serving.regions.deciding.gates import server_failed
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_document import read_order, read_rollout, read_windows, show_rollout
from serving.regions.deciding.rollout_state import CANARY, LIVE, Rollout
from tests.fakes.counted import counters
from tests.fakes.rollouts import BEGAN, POLICY, gateway, make_release, rollout_in

WINDOW = Window(region="there", percent=25, candidate=counters(answered=4), live=counters(answered=9))


def full() -> Rollout:
    """Every structured field has something in it."""
    rollout = rollout_in(
        CANARY,
        percent=5,
        baseline=gateway(new=counters(answered=1)),
        opening=gateway(old=counters(answered=2)),
        recorded=counters(answered=3),
        scores=Scores(count=2, total=1.5),
        earlier=[WINDOW],
        evidence=[replace(WINDOW, region="here")],
    )
    last = replace(rollout.steps[2], gates=[server_failed("it ended")])
    return replace(rollout, steps=[*rollout.steps[:2], last])


def test_a_rollout_survives_json() -> None:
    assert read_rollout(full().to_json()) == full()
    assert read_rollout(rollout_in(CANARY).to_json()) == rollout_in(CANARY)


def test_fields_of_tomorrow_are_ignored() -> None:
    document = full().to_json()
    document["policy"]["of_tomorrow"] = document["of_tomorrow"] = 1
    document["steps"][2]["gates"][0]["of_tomorrow"] = 1
    assert read_rollout(document) == full()


def test_what_an_earlier_agent_did_not_write_is_a_default() -> None:
    document = full().to_json()
    for name in ("opening", "recorded", "scores", "earlier", "evidence"):
        del document[name]
    assert read_rollout(document) == replace(
        full(), opening=None, recorded=None, scores=Scores(), earlier=[], evidence=[]
    )


def test_counters_of_another_version_begin_anew() -> None:
    document = full().to_json()
    document["baseline"] = document["opening"] = {"boot_id": "b"}
    read = read_rollout(document)
    # What was recorded of the live version is read by itself.
    assert (read.baseline, read.opening, read.recorded) == (None, None, full().recorded)
    assert read_rollout(full().to_json() | {"recorded": None}).recorded is None


@pytest.mark.parametrize(
    "broken",
    [
        [{}],
        [None],
        [1],
        [{**WINDOW.to_json(), "percent": "x"}],
        [{**WINDOW.to_json(), "candidate": []}],
        [{**WINDOW.to_json(), "scores": None}],
        None,
    ],
)
def test_evidence_that_cannot_be_read_is_refused(broken: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^evidence is malformed"):
        read_windows(broken)


def test_latencies_beyond_their_buckets_are_refused() -> None:
    raw = WINDOW.to_json()
    raw["candidate"]["users"]["latencies"]["used"] = {"9999": 1}
    with pytest.raises(InvalidInput, match=r"^evidence is malformed"):
        read_windows([raw])
    raw["candidate"]["users"]["latencies"]["used"] = []
    with pytest.raises(InvalidInput, match=r"^evidence is malformed"):
        read_windows([raw])


def test_a_region_shows_its_part_of_a_promotion() -> None:
    rollout = replace(
        full(), state=LIVE, watch_until=500.0, paused=True, waiting_for="w", actor="ann", reason="r", finished_at=130.0
    )
    shown = show_rollout(rollout, endpoint="http://gateway")
    assert shown.pop("steps") == rollout.to_json()["steps"]
    assert shown.pop("evidence") == [replace(WINDOW, region="here").to_json()]
    assert shown == {
        "id": "p",
        "region": "here",
        "model": "m",
        "release": "rel-2",
        "state": "live",
        "percent": 5,
        "reason": "r",
        "version": 2,
        "previous_version": 1,
        "started_at": 0.0,
        "finished_at": 130.0,
        "endpoint": "http://gateway",
        "changed": True,
        "ending": None,
        "revert_failure": None,
        "held": False,
        "settled": False,
        "watching": True,
        "paused": True,
        "waiting_for": "w",
        "actor": "ann",
    }


# Orders

ORDER = {"schema_version": 1, "release": make_release().to_json(), "version": 2, "policy": POLICY.to_json()}


def ordered(**changes: Any) -> Rollout:
    return read_order("p", "here", ORDER | changes, now=BEGAN)


def test_an_order_makes_a_rollout_that_waits() -> None:
    assert ordered() == Rollout(
        id="p", region="here", release=make_release(), version=2, policy=POLICY, started_at=BEGAN
    )


def test_an_order_may_hold_pause_promote_and_bring_evidence() -> None:
    bare = ordered()
    assert ordered(
        hold=True, paused=True, promoted_by="ann", actor="bob", regions=3, evidence=[WINDOW.to_json()], of_tomorrow=1
    ) == replace(bare, held=True, paused=True, promoted_by="ann", actor="bob", regions=3, earlier=[WINDOW])
    assert (ordered(regions=0).regions, ordered(regions=2).regions, ordered(promoted_by=None).promoted_by) == (
        1,
        2,
        None,
    )
    tomorrow = ORDER["policy"] | {"of_tomorrow": 1}  # type: ignore[operator]
    assert ordered(policy=tomorrow).policy == POLICY
    assert ordered(policy={}).policy == PromotionPolicy()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema_version": 2}, "rollout order is malformed"),
        ({"version": "2"}, "version of the rollout order is malformed"),
        ({"version": None}, "version of the rollout order is malformed"),
        ({"hold": 1}, "hold of the rollout order is malformed"),
        ({"paused": "no"}, "paused of the rollout order is malformed"),
        ({"promoted_by": 1}, "promoted_by of the rollout order is malformed"),
        ({"actor": None}, "actor of the rollout order is malformed"),
        ({"regions": 1.5}, "regions of the rollout order is malformed"),
        ({"evidence": [1]}, "evidence is malformed"),
        ({"release": None}, "release is malformed"),
        ({"policy": None}, "policy is malformed"),
    ],
)
def test_an_order_that_does_not_hold_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{what}"):
        ordered(**change)


@pytest.mark.parametrize("order", [None, [], "order", {}])
def test_an_order_that_is_no_object_of_this_schema_is_refused(order: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^rollout order is malformed"):
        read_order("p", "here", order, now=BEGAN)


def test_an_order_without_a_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^version of the rollout order is malformed"):
        read_order("p", "here", {name: ORDER[name] for name in ("schema_version", "release", "policy")}, now=BEGAN)
