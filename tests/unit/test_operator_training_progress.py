"""What workers report: how far the run is, what restarts cost, stalls, stragglers, early stops."""

import math
from typing import Any

import pytest
from flightpath_operator.plan import Object
from flightpath_operator.training.reports import read_report

from tests.fakes.training_world import World


def reporting(seconds_per_step: float = 1.0, *, steps: int = 30, each: int = 10, **spec: Any) -> World:
    """A running job with a steady pace."""
    world = World(**spec).started()
    for step in range(each, steps + 1, each):
        world.pass_time(seconds_per_step * each)
        world.report(step, checkpoint_step=step - step % 20)
        world.settle()
    return world


def stalled(world: World) -> str | None:
    found = world.condition("Stalled")
    return found[0] if found else None


def test_newest_report_stands_in_the_status() -> None:
    world = World().started()
    world.pass_time(3.25)
    world.report(7, total_steps=100, loss=0.5, samples_per_s=12.5, checkpoint_step=5)
    world.settle()
    assert world.status["progress"] == {
        "step": 7,
        "totalSteps": 100,
        "loss": 0.5,
        "samplesPerS": 12.5,
        "checkpointStep": 5,
        "time": "2027-01-15T08:00:03.250Z",
    }


def test_reports_are_written_at_most_every_ten_seconds_but_checkpoints_at_once() -> None:
    world = World().started()
    world.report(1)
    world.settle()
    world.pass_time(9)
    world.report(2)
    world.settle()
    assert world.status["progress"]["step"] == 1
    world.report(3, checkpoint_step=3)
    world.pass_time(0.5)
    world.report(3, checkpoint_step=3)
    world.settle()
    assert world.status["progress"]["step"] == 3
    world.pass_time(1)
    world.report(1000)
    world.settle()
    assert world.status["progress"]["step"] == 1000, "the last step is written at once"


def test_restart_tells_what_it_cost() -> None:
    world = World().started()
    world.report(40, checkpoint_step=40)
    world.settle()
    world.pass_time(5)
    world.report(55, checkpoint_step=40)
    world.pass_time(2)
    world.exit(1, 1)
    world.settle()
    assert world.status["restarts"] == [{"at": "2027-01-15T08:00:07.000Z", "cause": "WorkerFailed"}]
    world.next_attempt()
    world.pass_time(8)
    torn = [{"name": "step-50-a1", "reason": "hash of model.safetensors differs"}]
    world.report(41, checkpoint_step=40, resumed_from_step=40, skipped_checkpoints=torn)
    world.settle()
    [restart] = world.status["restarts"]
    assert restart == {
        "at": "2027-01-15T08:00:07.000Z",
        "cause": "WorkerFailed",
        "resumedFromStep": 40,
        "lostSteps": 15,
        "lostSeconds": pytest.approx(13, abs=0.01),
    }
    assert world.status["checkpoint"] == {"step": 40, "verified": True, "skipped": torn}
    assert world.counted("flightpath_operator_lost_steps_total") == 15
    assert world.counted("flightpath_operator_lost_seconds_total") == pytest.approx(13, abs=0.01)


def test_workers_that_do_not_say_what_they_resumed_from_resumed_from_the_newest_checkpoint() -> None:
    world = reporting(steps=30, restart={"maxRestarts": 9})
    world.exit(0, 1)
    world.next_attempt()
    world.report(21)
    world.settle()
    assert world.status["restarts"][0]["resumedFromStep"] == 20
    assert world.status["restarts"][0]["lostSteps"] == 10


def test_report_of_an_older_attempt_says_nothing_about_the_new_one() -> None:
    world = reporting()
    world.exit(0, 1)
    world.next_attempt()
    late = world.now - 100
    world.progress = {"step": 999, "received_at": late}
    world.settle()
    world.progress = {"step": 999, "received_at": world.now, "attempt": 1}
    world.settle()
    assert world.status["progress"]["step"] == 30
    assert "lostSteps" not in world.status["restarts"][0]


def test_new_checkpoint_is_not_verified_before_somebody_has_read_it_back() -> None:
    world = World().started()
    world.report(41, checkpoint_step=40, resumed_from_step=40)
    world.settle()
    assert world.status["checkpoint"] == {"step": 40, "verified": True}
    world.pass_time(20)
    world.report(61, checkpoint_step=60, resumed_from_step=40)
    world.settle()
    assert world.status["checkpoint"] == {"step": 60, "verified": False}


def test_skipped_checkpoints_stay_named_until_the_next_attempt() -> None:
    world = World().started()
    torn = [{"name": "step-50-a1", "reason": "torn"}]
    world.report(41, checkpoint_step=40, skipped_checkpoints=torn)
    world.settle()
    world.pass_time(20)
    world.report(61, checkpoint_step=60, skipped_checkpoints=[])
    world.settle()
    assert world.status["checkpoint"]["skipped"] == torn
    world.exit(0, 1)
    world.next_attempt()
    world.pass_time(1)
    world.report(61, checkpoint_step=60, skipped_checkpoints=[])
    world.settle()
    assert "skipped" not in world.status["checkpoint"]


def test_agents_that_formed_anew_by_themselves_lost_steps_as_well() -> None:
    world = reporting(steps=30, workers={"min": 1, "max": 2})
    world.pass_time(12)
    world.report(21, resumed_from_step=20, checkpoint_step=20)
    world.settle()
    [restart] = world.status["restarts"]
    assert (restart["cause"], restart["lostSteps"]) == ("WorkersReformed", 10)
    assert restart["lostSeconds"] == pytest.approx(12, abs=0.01)
    assert world.counted("flightpath_operator_lost_steps_total") == 10


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"step": "7"},
        {"step": -1},
        {"step": True},
        {"step": 1.5},
        {"step": math.nan},
        {"step": 7, "received_at": "now"},
        {"step": 7, "received_at": math.inf},
    ],
)
def test_malformed_reports_are_none(told: Object) -> None:
    assert read_report({"received_at": 1.0} | told if told else told) is None


def test_malformed_parts_of_a_report_are_left_out() -> None:
    report = read_report(
        {
            "step": 7.0,
            "received_at": 5.0,
            "loss": math.nan,
            "samples_per_s": -3,
            "time": 1e300,
            "total_steps": [],
            "checkpoint_step": "x",
            "skipped_checkpoints": [
                {"name": "a"},
                {"reason": "nameless"},
                3,
                {"name": "b" * 999, "reason": "r" * 9999},
            ],
            "rank_seconds": {"0": 0.1, "x": 1, "1": math.inf, "2": -1},
        }
    )
    assert report is not None
    assert (report.step, report.loss, report.samples_per_s, report.time) == (7, None, None, 5.0)
    assert (report.total_steps, report.checkpoint_step) == (None, None)
    assert [(entry.name[:3], len(entry.name), len(entry.reason)) for entry in report.skipped] == [
        ("a", 1, 0),
        ("bbb", 253, 1024),
    ]
    assert report.rank_seconds == {0: 0.1}


def test_silence_of_ten_usual_steps_is_a_stall() -> None:
    world = reporting(seconds_per_step=20.0, steps=3, each=1)
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == pytest.approx(200, abs=0.01)
    world.pass_time(199.9)
    world.settle()
    assert stalled(world) is None
    world.pass_time(0.2)
    world.settle()
    assert stalled(world) == "True"
    assert world.told().count("NoProgress") == 1
    assert world.phase == "Running", "restart.onStall is false"


def test_stall_factor_and_floor_hold() -> None:
    quick = reporting(seconds_per_step=0.5, steps=40)
    quick.pass_time(59)
    quick.settle()
    assert stalled(quick) is None
    quick.pass_time(1.1)
    quick.settle()
    assert stalled(quick) == "True"
    patient = reporting(seconds_per_step=20.0, steps=3, each=1, restart={"stallFactor": 50})
    patient.pass_time(999)
    patient.settle()
    assert stalled(patient) is None


def test_rare_reports_are_no_stall() -> None:
    world = reporting(seconds_per_step=1.0, steps=400, each=200)
    world.pass_time(390)
    world.settle()
    assert stalled(world) is None
    world.pass_time(20)
    world.settle()
    assert stalled(world) == "True"


def test_stall_ends_with_the_next_report() -> None:
    world = reporting()
    world.pass_time(70)
    world.settle()
    assert stalled(world) == "True"
    world.report(31)
    world.settle()
    assert stalled(world) == "False"
    assert world.told()[-1] == "Progressing"


def test_silence_after_the_last_step_is_no_stall() -> None:
    world = reporting()
    world.pass_time(10)
    world.report(1000, total_steps=1000)
    world.settle()
    world.pass_time(10_000)
    world.settle()
    assert stalled(world) is None


def test_job_that_never_reports_never_stalls() -> None:
    world = World().started()
    world.pass_time(100_000)
    world.settle()
    assert stalled(world) is None


def test_group_that_hangs_after_a_restart_stalls_after_the_startup_deadline() -> None:
    world = reporting(startupDeadlineSeconds=300)
    world.exit(0, 1)
    world.next_attempt()
    world.pass_time(299)
    world.settle()
    assert stalled(world) is None
    world.pass_time(2)
    world.settle()
    assert stalled(world) == "True"


def test_stall_restarts_the_group_only_where_the_job_says_so() -> None:
    world = reporting(restart={"onStall": True})
    world.pass_time(70)
    world.settle()
    assert world.status["restarts"][0]["cause"] == "Stalled"
    assert world.status["failures"] == 1


def test_stall_on_a_broken_gpu_restarts_the_group_elsewhere() -> None:
    world = reporting(gpusPerWorker=1, restart={"maxRestarts": 0})
    world.break_gpu("node-b")
    world.settle()
    assert world.phase == "Running", "a fault that hurts nobody restarts nobody"
    world.pass_time(70)
    world.settle()
    assert world.status["restarts"][0]["cause"] == "GpuFault"
    assert world.status["lastFailure"]["node"] == "node-b"


def test_straggler_is_named_with_its_node() -> None:
    world = World(workers=4).started()
    world.report(10, rank_seconds={"0": 0.1, "1": 0.1, "2": 0.3, "3": 0.1})
    world.settle()
    status, _, message = world.condition("Straggling") or ("", "", "")
    assert status == "True"
    assert message == "rank 2 on node-c takes 0.3 s; the median is 0.1 s per step"
    world.pass_time(20)
    world.report(20, rank_seconds={"0": 0.1, "1": 0.1, "2": 0.14, "3": 0.1})
    world.settle()
    assert (world.condition("Straggling") or ("",))[0] == "True", "no flapping at the limit"
    world.pass_time(20)
    world.report(30, rank_seconds={"0": 0.1, "1": 0.1, "2": 0.11, "3": 0.1})
    world.settle()
    assert (world.condition("Straggling") or ("",))[0] == "False"
    assert world.told().count("SlowWorkers") == 1


def test_two_ranks_have_no_odd_one_out() -> None:
    world = World(workers=2).started()
    world.report(10, rank_seconds={"0": 0.1, "1": 0.9})
    world.settle()
    assert world.condition("Straggling") is None


@pytest.mark.parametrize(("mode", "losses"), [("min", [0.4, 0.6, 0.5, 0.49]), ("max", [0.6, 0.4, 0.5, 0.51])])
def test_target_must_be_reached_in_reports_one_after_another(mode: str, losses: list[float]) -> None:
    world = World(success={"metric": "loss", "target": 0.5, "mode": mode, "patience": 2}).started()
    for step, loss in enumerate(losses):
        assert world.phase == "Running", step
        world.pass_time(1)
        world.report(step, loss=loss)
        world.settle()
    assert world.phase == "Succeeded"
    assert (world.condition("Succeeded") or ("", "", ""))[1] == "TargetReached"
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())


def test_reports_that_change_nothing_write_nothing() -> None:
    world = reporting()
    before = world.status
    world.pass_time(1)
    world.report(31, checkpoint_step=20)
    plan = world.plan()
    assert plan.status == before
