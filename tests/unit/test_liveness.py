"""When silence means death: soon for what is stopped, late for what may be busy, never for the observer's own sleep."""

import pytest

from serving.liveness import Liveness, LivenessLimits, Verdict

LIMITS = LivenessLimits()


def watch(
    liveness: Liveness,
    start_s: float,
    seconds: float,
    *,
    every_s: float = 0.2,
    stopped: bool = False,
    answers_every_s: float | None = None,
    works_every_s: float | None = None,
) -> dict[Verdict, float]:
    """When each verdict was first reached, seconds from the start; looks go on for `seconds`."""
    reached: dict[Verdict, float] = {}
    for look in range(round(seconds / every_s) + 1):
        verdict = liveness.look(
            start_s + look * every_s,
            answered=answers_every_s is not None and look % round(answers_every_s / every_s) == 0,
            working=works_every_s is not None and look % round(works_every_s / every_s) == 0,
            stopped=stopped,
        )
        reached.setdefault(verdict, look * every_s)
    return reached


def test_a_stopped_process_is_out_of_the_route_in_a_second_and_dead_in_five() -> None:
    liveness = Liveness()
    watch(liveness, 0.0, 10.0, answers_every_s=2.0)
    reached = watch(liveness, 10.2, 10.0, stopped=True)
    assert reached[Verdict.SILENT] == pytest.approx(LIMITS.stopped_silent_s, abs=0.21)
    assert reached[Verdict.DEAD] == pytest.approx(LIMITS.stopped_dead_s, abs=0.21)
    assert liveness.why == "stopped for 10 s"


def test_a_stopped_process_that_goes_on_is_trusted_once_it_answers() -> None:
    liveness = Liveness()
    watch(liveness, 0.0, 3.0, stopped=True)
    assert liveness.look(3.2, answered=False, stopped=False) is Verdict.SILENT
    assert liveness.look(3.4, answered=True, stopped=False) is Verdict.ALIVE
    assert liveness.why == ""
    # The earlier stop counts for nothing at the next.
    assert Verdict.DEAD not in watch(liveness, 3.6, 4.8, stopped=True)


def test_signs_of_work_do_not_help_a_stopped_process() -> None:
    assert Verdict.DEAD in watch(Liveness(), 0.0, 6.0, stopped=True, works_every_s=1.0)


def test_a_process_of_which_only_a_helper_is_stopped_goes_on_as_long_as_it_answers() -> None:
    assert watch(Liveness(), 0.0, 60.0, stopped=True, answers_every_s=0.4) == {Verdict.ALIVE: 0.0}


def test_a_busy_process_that_answers_nothing_but_works_lives_for_ever() -> None:
    assert watch(Liveness(), 0.0, 3600.0, works_every_s=50.0) == {Verdict.ALIVE: 0.0}


def test_a_process_without_any_sign_leaves_the_route_first_and_is_dead_later() -> None:
    liveness = Liveness()
    reached = watch(liveness, 0.0, 150.0)
    assert reached[Verdict.SILENT] == pytest.approx(LIMITS.hung_silent_s, abs=0.21)
    assert reached[Verdict.DEAD] == pytest.approx(LIMITS.hung_dead_s, abs=0.21)
    assert liveness.why == "no sign of life for 150 s"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_observers_own_sleep_is_no_silence_of_the_observed(stopped: bool) -> None:
    liveness = Liveness()
    liveness.look(0.0, answered=True, stopped=False)
    liveness.look(1.0, answered=False, stopped=stopped)
    for after in (3601.0, 7201.0, 7201.2):
        assert liveness.look(after, answered=False, stopped=stopped) is not Verdict.DEAD
    assert liveness.look(7201.4, answered=True, stopped=False) is Verdict.ALIVE
