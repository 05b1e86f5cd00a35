"""A worker fails: the whole group starts again, once, for the right reason and within its limits."""

import pytest
from flightpath_operator.plan import Object

from tests.fakes.training_world import World


def test_group_restarts_when_one_worker_dies() -> None:
    world = World(workers=3).started()
    world.exit(1, 1, message="RuntimeError: boom")
    world.settle()
    assert world.phase == "Restarting"
    assert world.status["attempt"] == 2
    assert [name for name, pod in world.pods.items() if "deletionTimestamp" not in pod["metadata"]] == []
    assert world.status["lastFailure"] == {
        "worker": "digits-a1-w1",
        "node": "node-b",
        "exitCode": 1,
        "reason": "WorkerFailed",
        "message": "RuntimeError: boom",
    }
    world.next_attempt()
    assert sorted(world.pods) == ["digits-a2-w0", "digits-a2-w1", "digits-a2-w2"]
    assert world.phase == "Running"


def test_new_attempt_is_saved_before_anything_of_the_old_one_is_deleted() -> None:
    world = World().started()
    world.exit(0, 1)
    decided = world.step()
    assert decided.status is not None
    assert decided.status["attempt"] == 2
    assert (decided.creates, decided.patches, decided.deletes) == ((), (), ())
    assert len(world.step().deletes) == 2


def test_new_pods_wait_until_every_old_one_is_gone() -> None:
    world = World().started()
    world.exit(0, 1)
    world.settle()
    world.pass_time(300)
    assert sorted(world.pods) == ["digits-a1-w1"]
    assert world.settle().creates == ()
    assert "have not ended: 1" in (world.condition("Scheduled") or ("", "", ""))[2]
    world.end_deleted()
    world.settle()
    assert sorted(world.pods) == ["digits-a2-w0", "digits-a2-w1"]


def test_ended_pod_that_only_a_foreign_finalizer_keeps_is_not_waited_for() -> None:
    world = World().started()
    world.exit(1, 1)
    world.step()
    for pod in world.pods.values():
        pod["metadata"] |= {"finalizers": ["kueue.x-k8s.io/managed"], "deletionTimestamp": "2027-01-15T08:00:00Z"}
        pod["status"]["phase"] = "Failed"
    world.pass_time(10)
    world.settle()
    assert "digits-a2-w0" in world.pods


def test_backoff_doubles_until_the_run_gets_further() -> None:
    world = World(restart={"maxRestarts": 10, "backoffSeconds": 4, "maxBackoffSeconds": 10}).started()
    waits = []
    for _ in range(3):
        world.exit(0, 1)
        world.settle()
        world.end_deleted()
        again = world.settle().again_in
        assert again is not None
        waits.append(again.total_seconds())
        world.next_attempt()
    assert waits == [4, 8, 10]
    world.pass_time(1)
    world.report(5)
    world.settle()
    world.exit(0, 1)
    world.settle()
    world.end_deleted()
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == 4


def test_job_fails_when_its_restarts_are_used_up() -> None:
    world = World(restart={"maxRestarts": 1}).started()
    world.exit(0, 1)
    world.next_attempt()
    world.exit(1, 1, message="still broken")
    world.settle()
    assert world.phase == "Failed"
    status, reason, message = world.condition("Failed") or ("", "", "")
    assert (status, reason) == ("True", "MaxRestartsExceeded")
    assert "2 failures, and 1 restarts are allowed" in message
    assert "still broken" in message
    assert world.status["finishedAt"].startswith("2027")


def test_what_still_runs_is_ended_when_the_job_fails_and_what_ended_keeps_its_logs() -> None:
    world = World(restart={"policy": "Never"}).started()
    world.exit(0, 1)
    world.settle()
    assert world.phase == "Failed"
    world.end_deleted()
    world.settle()
    assert sorted(world.pods) == ["digits-a1-w0"]


@pytest.mark.parametrize(
    ("rules", "code", "phase"),
    [
        ([], 2, "Failed"),
        ([], 3, "Restarting"),
        ([{"codes": [2], "action": "Restart"}], 2, "Restarting"),
        ([{"codes": [3, 4], "action": "Fail"}], 4, "Failed"),
        ([{"codes": [4], "action": "Restart"}, {"codes": [4], "action": "Fail"}], 4, "Restarting"),
        ([{"codes": [9], "action": "Ignore"}], 9, "Running"),
    ],
)
def test_exit_code_rules_decide(rules: list[Object], code: int, phase: str) -> None:
    world = World(restart={"exitCodes": rules}).started()
    world.exit(1, code)
    world.settle()
    assert world.phase == phase


def test_job_with_an_ignored_exit_code_succeeds_when_the_others_are_done() -> None:
    world = World(restart={"exitCodes": [{"codes": [9], "action": "Ignore"}]}).started()
    world.exit(1, 9)
    world.exit(0)
    world.settle()
    assert world.phase == "Succeeded"


def test_wrong_input_says_that_no_restart_helps() -> None:
    world = World().started()
    world.exit(0, 2, message="InvalidInput: dataset not found")
    world.settle()
    _, reason, message = world.condition("Failed") or ("", "", "")
    assert reason == "WrongInput"
    assert "InvalidInput: dataset not found" in message


def test_out_of_memory_is_said_in_words() -> None:
    world = World(resources={"limits": {"memory": "4Gi"}}).started()
    world.exit(1, 137, reason="OOMKilled")
    world.settle()
    assert world.status["restarts"][0]["cause"] == "OOMKilled"
    message = world.notes[-1].message
    assert "worker 1 on node-b was killed for using more memory than 4Gi" in message
    assert world.status["failures"] == 1


def test_signal_is_named() -> None:
    world = World().started()
    world.exit(1, 139)
    world.settle()
    assert "exited with code 139 (SIGSEGV)" in world.notes[-1].message


def test_sidecar_that_goes_on_does_not_hide_the_end_of_the_program() -> None:
    world = World().started()
    for rank, code in ((0, 0), (1, 3)):
        world.exit(rank, code)
        world.pod(rank)["status"]["phase"] = "Running"
    world.settle()
    assert world.status["lastFailure"]["exitCode"] == 3


def test_same_failure_again_and_again_is_called_a_crash_loop() -> None:
    world = World(restart={"maxRestarts": 10}).started()
    for _ in range(3):
        world.exit(1, 1, message="ImportError")
        world.next_attempt()
    world.exit(1, 1, message="ImportError")
    world.settle()
    _, reason, message = world.condition("Running") or ("", "", "")
    assert reason == "CrashLoop"
    assert "4 failures in a row without progress, the last with exit code 1: ImportError" in message


def test_failure_that_the_operator_sees_late_has_cost_from_its_own_time_on() -> None:
    world = World().started()
    world.report(5)
    world.settle()
    world.pass_time(1000)
    world.exit(0, 1, at=world.now - 900)
    world.settle()
    assert world.status["restarts"][0]["at"] == "2027-01-15T08:01:40.000Z"


@pytest.mark.parametrize("offset", [-5000, 5000])
def test_clock_of_a_node_that_makes_no_sense_is_not_believed(offset: float) -> None:
    world = World().started()
    world.pass_time(100)
    world.exit(0, 1, at=world.now + offset)
    world.settle()
    assert world.status["restarts"][0]["at"] == "2027-01-15T08:01:40.000Z"


def test_a_failure_is_told_once() -> None:
    world = World().started()
    world.exit(0, 1)
    world.settle()
    world.end_deleted()
    world.settle()
    assert world.told().count("Restarting") == 1
    assert sum(name == "flightpath_operator_restarts_total" for name, _, _ in world.metrics) == 1


def test_status_keeps_the_last_twenty_restarts() -> None:
    world = World(restart={"maxRestarts": 100, "backoffSeconds": 0}).started()
    for _ in range(22):
        world.exit(0, 1)
        world.next_attempt()
    assert len(world.status["restarts"]) == 20
    assert world.status["failures"] == 22


def test_status_that_was_lost_costs_no_running_group() -> None:
    world = World().started()
    assert world.parent is not None
    before = sorted(world.pods)
    for status in ({}, {"attempt": 1}, {"attempt": 1, "restarts": "damaged"}, {"bookkeeping": 7, "attempt": 1}):
        world.parent["status"] = status
        world.settle()
        assert sorted(world.pods) == before
        assert world.phase == "Running"
        assert world.condition("Degraded") is None


def test_stray_pod_of_the_job_is_deleted() -> None:
    world = World().started()
    stray = world.pod(0) | {"metadata": world.pod(0)["metadata"] | {"name": "digits-debug", "uid": "uid-copy"}}
    world.children["Pod", "digits-debug"] = stray
    world.settle()
    world.end_deleted()
    world.settle()
    assert sorted(world.pods) == ["digits-a1-w0", "digits-a1-w1"]
    assert world.phase == "Running"
