"""What calls for the health of gateways and agents add up to, and that one that hangs keeps nobody waiting."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from flightpath.local.health import HealthCall, Wellness, ask
from tests.fakes.faulty_backend import FaultyBackend, answer_class
from tests.fakes.ports import free_port


def look(wellness: Wellness, start_s: int, seconds: int, *statuses: int | None) -> dict[str, int]:
    """Each reason to replace and when it was told first; one look and, in turn, one of the statuses a second."""
    told: dict[str, int] = {}
    for second in range(seconds):
        why = wellness.look(float(start_s + second), status=statuses[second % len(statuses)], stopped=False)
        if why is not None:
            told.setdefault(why, second)
    return told


def test_a_process_that_answered_and_then_nothing_for_a_minute_is_replaced() -> None:
    wellness = Wellness()
    assert look(wellness, 0, 300, 200) == {}
    assert next(iter(look(wellness, 300, 90, None).items())) == ("no sign of life for 60 s", 59)


def test_a_process_that_starts_has_longer() -> None:
    assert min(look(Wellness(), 0, 300, None).values()) == 180


def test_a_busy_process_that_answers_one_call_in_fifty_is_left_alone() -> None:
    assert look(Wellness(), 0, 3600, 200, *[None] * 49) == {}


def test_answers_that_are_no_503_are_signs_of_life() -> None:
    assert look(Wellness(), 0, 600, 404, 500, 401) == {}


def test_503_is_borne_for_minutes_and_then_replaced_once() -> None:
    wellness = Wellness()
    look(wellness, 0, 10, 200)
    assert look(wellness, 10, 170, 503, None) == {}
    assert look(wellness, 180, 60, 503) == {"unwell (HTTP 503) for 180 s": 9}
    wellness.begin()
    # The next process says the same: it is not the process.
    assert look(wellness, 300, 3600, 503) == {}
    assert look(wellness, 3900, 5, 200) == {}
    assert list(look(wellness, 3905, 300, 503)) == ["unwell (HTTP 503) for 180 s"]


def test_one_answer_that_is_well_ends_the_count() -> None:
    assert look(Wellness(), 0, 3600, *[503] * 150, 200) == {}


def test_a_child_that_hangs_keeps_nobody_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, FaultyBackend(answer_class(1)) as well:
        port = silent.getsockname()[1]
        with ThreadPoolExecutor(max_workers=2) as pool:
            hanging, answering = HealthCall(f"http://127.0.0.1:{port}/healthz", pool), HealthCall(well.url, pool)
            assert (hanging.heard(0.0), answering.heard(0.0)) == (None, None)
            while answering.heard(0.0) != 200:
                assert hanging.heard(0.0) is None
            # Its question is still open, and the next is not asked before that.
            silent.settimeout(10)
            connection, _ = silent.accept()
            assert hanging.heard(100.0) is None
            silent.settimeout(0.2)
            with connection, pytest.raises(TimeoutError):
                silent.accept()


def test_nobody_there_is_no_answer() -> None:
    assert ask(f"http://127.0.0.1:{free_port()}/healthz") is None
