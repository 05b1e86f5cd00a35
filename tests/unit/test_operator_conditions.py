"""Conditions: transitions move the time, and nothing else does."""

import pytest
from flightpath_operator.conditions import (
    MAX_MESSAGE,
    degraded,
    drop_condition,
    find_condition,
    is_true,
    notes_of_transitions,
    seconds,
    set_condition,
    set_conditions,
    timestamp,
)
from flightpath_operator.plan import Note

T0 = 1_767_225_600.0


def test_a_new_condition_is_added_at_the_end() -> None:
    conditions = set_condition([{"type": "Other"}], "Ready", True, "Up", "all answer", now=T0, generation=3)
    assert conditions == [
        {"type": "Other"},
        {
            "type": "Ready",
            "status": "True",
            "reason": "Up",
            "message": "all answer",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        },
    ]


def test_time_stays_while_the_status_does() -> None:
    first = set_condition([], "Ready", False, "Starting", "0 of 2", now=T0, generation=1)
    second = set_condition(first, "Ready", False, "Starting", "1 of 2", now=T0 + 60, generation=2)
    assert second[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (second[0]["message"], second[0]["observedGeneration"]) == ("1 of 2", 2)


def test_time_moves_with_the_status() -> None:
    first = set_condition([], "Ready", False, "Starting", now=T0, generation=1)
    second = set_condition(first, "Ready", True, "Up", now=T0 + 60.9, generation=1)
    assert second[0]["lastTransitionTime"] == "2026-01-01T00:01:00Z"


def test_setting_the_same_again_changes_nothing() -> None:
    first = set_condition([], "Ready", None, "NotSeen", now=T0, generation=1)
    assert set_condition(first, "Ready", None, "NotSeen", now=T0 + 5, generation=1) == first
    assert first[0]["status"] == "Unknown"


def test_what_is_given_is_not_mutated() -> None:
    first = set_condition([], "Ready", False, "Starting", now=T0, generation=1)
    copied = [dict(condition) for condition in first]
    set_condition(first, "Ready", True, "Up", now=T0 + 1, generation=1)
    assert first == copied


def test_a_condition_without_its_time_gets_one() -> None:
    torn = [{"type": "Ready", "status": "True"}]
    assert set_condition(torn, "Ready", True, "Up", now=T0, generation=1)[0]["lastTransitionTime"] == timestamp(T0)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("ImagePullBackOff", "ImagePullBackOff"), ("exit code: 3!", "exitcode:3"), ("", "Unknown"), ("42nd", "nd")],
)
def test_reasons_are_such_as_the_api_accepts(reason: str, kept: str) -> None:
    assert set_condition([], "Ready", False, reason, now=T0, generation=1)[0]["reason"] == kept


def test_long_messages_are_cut_and_say_so() -> None:
    message = set_condition([], "Ready", False, "Long", "x" * 50_000, now=T0, generation=1)[0]["message"]
    assert len(message) == MAX_MESSAGE
    assert message.endswith("… (50000 characters)")


def test_an_empty_message_becomes_the_reason() -> None:
    assert set_condition([], "Ready", True, "Up", now=T0, generation=1)[0]["message"] == "Up"


def test_conditions_are_found_and_dropped_by_type() -> None:
    conditions = set_conditions([], [("A", True, "Yes", ""), ("B", False, "No", "")], now=T0, generation=1)
    assert find_condition(conditions, "C") is None
    assert is_true(conditions, "A")
    assert not is_true(conditions, "B")
    assert not is_true(conditions, "C")
    assert [condition["type"] for condition in drop_condition(conditions, "A")] == ["B"]


def test_times_survive_the_way_there_and_back() -> None:
    assert seconds(timestamp(T0)) == T0
    assert seconds("2026-01-01T00:00:00.250000Z") == T0 + 0.25
    assert seconds("2026-01-01T01:00:00+01:00") == T0


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        seconds("yesterday")


def test_problems_outweigh_what_was_left_out() -> None:
    assert degraded(["queue needs Kueue"], ["quota"])[2:] == ("WriteRefused", "quota")
    assert degraded(["queue needs Kueue"], [])[1:] == (True, "LeftOut", "queue needs Kueue")
    assert degraded([], [])[1] is False


def test_events_tell_transitions_and_nothing_else() -> None:
    def notes(before: list[dict[str, object]], after: list[dict[str, object]]) -> tuple[Note, ...]:
        return notes_of_transitions(before, after, good={"Ready"}, bad={"Degraded"}, calm={"Starting"})

    def conditions(ready: bool, reason: str, *, bad: bool = False) -> list[dict[str, object]]:
        entries = [("Ready", ready, reason, ""), degraded(["x"] if bad else [], []), ("Progressing", True, "Any", "")]
        return set_conditions([], entries, now=T0, generation=1)

    starting, up = conditions(False, "Starting"), conditions(True, "Up")
    assert notes([], starting) == (Note(reason="Starting", message="Starting"),)
    assert notes(starting, starting) == ()
    assert notes(up, conditions(False, "Crashed"))[0].warning
    assert notes(starting, up) == (Note(reason="Up", message="Up"),)
    assert notes(up, conditions(True, "Up", bad=True)) == (Note(reason="LeftOut", message="x", warning=True),)
    assert notes(conditions(True, "Up", bad=True), up)[0].warning is False
