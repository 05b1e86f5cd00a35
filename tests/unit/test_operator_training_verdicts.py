"""A group is not judged by the pod whose end is told first: what explains it may be told a moment later."""

from itertools import permutations

import pytest
from flightpath_operator.plan import Object

from tests.fakes.training_world import PATIENT, World

PEER_GONE = "RuntimeError: Connection closed by peer"
WAIT_S = PATIENT.verdict_wait.total_seconds()


def waiting_world(**spec: object) -> World:
    """Two workers by default; the second one failed because the first one went, and is told of first."""
    world = World(PATIENT, **spec).started()
    world.pass_time(100)
    world.exit(1, 1, message=PEER_GONE)
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Running", 1)
    return world


def test_a_wrong_input_that_is_told_after_the_peers_end_fails_the_job() -> None:
    world = waiting_world()
    world.pass_time(2)
    world.exit(0, 2, message="NotFound: no whole checkpoint", at=world.now - 3)
    world.settle()
    assert world.phase == "Failed"
    _, reason, message = world.condition("Failed") or ("", "", "")
    assert reason == "WrongInput"
    assert "NotFound: no whole checkpoint" in message
    assert (world.status["attempt"], world.status["lastFailure"]["exitCode"]) == (1, 2)
    assert "restarts" not in world.status


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_in_which_ends_are_told_changes_nothing(order: tuple[int, ...]) -> None:
    ends: dict[int, Object] = {
        0: {"code": 1, "message": PEER_GONE},
        1: {"code": 2, "message": "InvalidInput: the cause"},
        2: {"code": 137},
    }
    world = World(PATIENT, workers=3).started()
    for rank in order:
        world.exit(rank, **ends[rank])
        world.settle()
        world.pass_time(1)
    assert (world.phase, world.status["lastFailure"]["worker"]) == ("Failed", "digits-a1-w1")


def test_the_last_workers_end_is_judged_at_once() -> None:
    world = waiting_world()
    world.exit(0, 1, message="ValueError: the cause", at=world.now - 5)
    world.settle()
    assert world.phase == "Restarting"
    assert world.status["lastFailure"]["message"] == "ValueError: the cause"


def test_a_peer_that_hangs_is_not_waited_for_beyond_the_bound() -> None:
    world = waiting_world()
    failed_at = world.now
    again = world.plan().again_in
    assert again is not None
    assert again.total_seconds() == WAIT_S
    world.pass_time(WAIT_S - 0.01)
    world.settle()
    assert world.status["attempt"] == 1
    world.pass_time(0.01)
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Restarting", 2)
    assert world.status["lastFailure"]["message"] == PEER_GONE
    assert world.pod(0, attempt=1)["metadata"]["deletionTimestamp"]
    world.next_attempt()
    world.report(5)
    world.settle()
    assert world.status["restarts"][0]["lostSeconds"] == world.now - failed_at


def test_a_failure_whose_time_makes_no_sense_counts_from_when_it_was_seen() -> None:
    world = World(PATIENT).started()
    world.pass_time(100)
    world.exit(1, 1, at=world.now + 5000)
    world.settle()
    world.pass_time(WAIT_S)
    world.settle()
    assert world.status["restarts"][0]["at"] == "2027-01-15T08:01:40.000Z"


def test_an_operator_that_dies_meanwhile_waits_no_longer() -> None:
    """Each look is made from the status alone; reports and other events lengthen nothing."""
    world = waiting_world()
    for _ in range(10):
        world.pass_time(WAIT_S / 10)
        world.report(int(world.now) % 1000)
        world.settle()
    assert world.status["attempt"] == 2


def test_one_worker_alone_is_judged_at_once() -> None:
    world = World(PATIENT, workers=1).started()
    world.exit(0, 1)
    world.settle()
    assert world.phase == "Restarting"


def test_an_eviction_that_is_told_after_the_peers_end_does_not_count() -> None:
    world = waiting_world(restart={"maxRestarts": 0})
    world.evict(0)
    world.settle()
    assert world.phase == "Restarting"
    assert world.status["restarts"][0]["cause"] == "Evicted"
    assert world.status.get("failures", 0) == 0


def test_an_eviction_explains_even_an_exit_that_forbids_a_restart() -> None:
    world = waiting_world(restart={"exitCodes": [{"codes": [1], "action": "Fail"}]})
    world.delete_child(("Pod", "digits-a1-w0"))
    world.settle()
    assert (world.phase, world.status["restarts"][0]["cause"]) == ("Restarting", "PodDeleted")


def test_a_job_that_never_restarts_fails_for_the_cause() -> None:
    world = waiting_world(restart={"policy": "Never"})
    world.exit(0, 137, reason="OOMKilled")
    world.settle()
    assert (world.condition("Failed") or ("", "", ""))[1] == "OOMKilled"


def test_a_gpu_fault_that_is_told_after_the_exit_explains_it() -> None:
    world = waiting_world(gpusPerWorker=8, restart={"maxRestarts": 0})
    world.break_gpu("node-b")
    world.settle()
    assert world.status["restarts"][0]["cause"] == "GpuFault"
    assert world.status.get("failures", 0) == 0


def test_a_peer_that_has_not_told_that_it_started_may_have_failed_already() -> None:
    world = World(PATIENT)
    world.settle()
    world.schedule()
    world.run(1)
    world.exit(1, 1, message=PEER_GONE)
    world.settle()
    assert world.status["attempt"] == 1
    world.exit(0, 2)
    world.settle()
    assert world.phase == "Failed"


def test_a_peer_without_a_node_explains_nothing() -> None:
    world = World(PATIENT)
    world.settle()
    world.run(1)
    world.exit(1, 2)
    world.settle()
    assert world.phase == "Failed"


def test_while_a_failure_is_unjudged_its_message_is_told_and_nothing_else_is_decided() -> None:
    world = World(PATIENT, workers={"min": 1, "max": 3}).started()
    world.exit(2, 1, message=PEER_GONE)
    world.settle()
    running, reason, message = world.condition("Running") or ("", "", "")
    assert (running, reason) == ("False", "WorkerFailed")
    assert PEER_GONE in message
    told = world.told()
    world.edit(workers={"max": 2})
    world.pass_time(1)
    plan = world.settle()
    assert (world.phase, plan.creates, plan.deletes) == ("Running", (), ())
    assert world.told() == told
    assert "resize" not in world.status["bookkeeping"]


def test_an_elastic_groups_failure_waits_for_its_peers_too() -> None:
    world = World(PATIENT, workers={"min": 1, "max": 3}).started()
    world.exit(2, 1, message=PEER_GONE)
    world.settle()
    world.exit(1, 1, message=PEER_GONE)
    world.settle()
    assert (world.phase, world.status["attempt"]) == ("Running", 1)
    world.exit(0, 2, message="InvalidInput: the cause")
    world.settle()
    assert world.phase == "Failed"


def test_a_lack_of_memory_is_no_peers_consequence_in_the_same_second() -> None:
    world = World(PATIENT).started()
    world.exit(0, 1, message=PEER_GONE)
    world.exit(1, 137, reason="OOMKilled")
    world.settle()
    assert world.status["restarts"][0]["cause"] == "OOMKilled"
