"""Another number of workers: at a checkpoint, in place where torchrun can, with a new attempt where it cannot."""

import pytest

from tests.fakes.training_world import World

ELASTIC = {"min": 1, "max": 4}


def elastic_world() -> World:
    world = World(workers=ELASTIC).started()
    world.report(10, checkpoint_step=10)
    world.settle()
    return world


def save(world: World, step: int) -> None:
    world.pass_time(15)
    world.report(step, checkpoint_step=step)
    world.settle()


def ranks(world: World) -> list[int]:
    return [
        int(name.rpartition("w")[2]) for name, pod in world.pods.items() if "deletionTimestamp" not in pod["metadata"]
    ]


def test_resize_waits_for_the_next_checkpoint() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 2})
    world.settle()
    assert world.phase == "Resizing"
    assert ranks(world) == [0, 1, 2, 3]
    world.pass_time(15)
    world.report(19, checkpoint_step=10)
    world.settle()
    assert ranks(world) == [0, 1, 2, 3]
    save(world, 20)
    assert ranks(world) == [0, 1]
    assert world.phase == "Running"


def test_shrinking_leaves_the_other_workers_running() -> None:
    world = elastic_world()
    before = world.pod(0)["metadata"]["uid"], world.pod(1)["metadata"]["uid"]
    world.edit(workers={"min": 1, "max": 2})
    world.settle()
    save(world, 20)
    world.end_deleted()
    world.settle()
    assert (world.pod(0)["metadata"]["uid"], world.pod(1)["metadata"]["uid"]) == before
    assert world.status["attempt"] == 1
    assert "restarts" not in world.status
    assert world.status["workers"] == {"ready": 2, "desired": 2}


def test_growing_within_the_bounds_adds_the_missing_ranks() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 2})
    world.settle()
    save(world, 20)
    world.end_deleted()
    world.edit(workers=ELASTIC)
    world.settle()
    save(world, 30)
    assert ranks(world) == [0, 1, 2, 3]
    assert world.status["attempt"] == 1


def test_growing_beyond_what_the_agents_know_begins_a_new_attempt() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 8})
    world.settle()
    save(world, 20)
    world.next_attempt()
    assert world.status["attempt"] == 2
    assert ranks(world) == list(range(8))
    assert world.pod(0)["spec"]["containers"][0]["env"][2] == {"name": "NNODES", "value": "1:8"}


def test_fixed_group_is_resized_by_a_restart_that_does_not_count() -> None:
    world = World(workers=2, restart={"maxRestarts": 0}).started()
    world.report(10, checkpoint_step=10)
    world.settle()
    world.edit(workers=3)
    world.settle()
    assert world.phase == "Resizing"
    save(world, 20)
    assert world.status["restarts"][0]["cause"] == "Resized"
    assert world.phase == "Resizing"
    world.next_attempt()
    assert ranks(world) == [0, 1, 2]
    assert "failures" not in world.status


def test_resize_does_not_wait_for_ever_for_a_checkpoint() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 2})
    again = world.settle().again_in
    assert again is not None
    world.pass_time(599)
    world.report(11, checkpoint_step=10)
    world.settle()
    assert ranks(world) == [0, 1, 2, 3]
    world.pass_time(1)
    world.settle()
    assert ranks(world) == [0, 1]


def test_job_without_checkpoints_is_resized_at_once() -> None:
    world = World(workers=ELASTIC)
    world.edit(checkpoint=None)
    world.started()
    world.edit(workers={"min": 1, "max": 2})
    world.settle()
    assert ranks(world) == [0, 1]


def test_group_that_does_not_train_yet_is_resized_at_once() -> None:
    world = World(workers=4)
    world.settle()
    world.edit(workers=2)
    world.settle()
    assert world.status["attempt"] == 2
    world.end_deleted()
    world.settle()
    assert ranks(world) == [0, 1]


def test_resize_that_is_taken_back_leaves_all_as_it_is() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 2})
    world.settle()
    world.edit(workers=ELASTIC)
    world.settle()
    assert world.phase == "Running"
    save(world, 20)
    assert ranks(world) == [0, 1, 2, 3]


def test_reduced_group_asks_for_more_after_a_while() -> None:
    world = World(workers=ELASTIC)
    world.settle()
    world.run(0, 1)
    world.settle()
    world.pass_time(600)
    world.settle()
    assert ranks(world) == [0, 1]
    world.report(10, checkpoint_step=10)
    world.settle()
    world.pass_time(899)
    save(world, 20)
    assert world.phase == "Resizing"
    save(world, 30)
    assert ranks(world) == [0, 1, 2, 3]
    world.pass_time(600)
    world.settle()
    assert ranks(world) == [0, 1], "still no node: the new workers go again, the old ones have trained on"
    assert world.status["attempt"] == 1


def test_rank_that_a_reduced_group_went_without_is_made_when_it_grows() -> None:
    world = World(workers=ELASTIC)
    world.settle()
    world.run(0, 2, 3)
    world.pass_time(600)
    world.settle()
    assert ranks(world) == [0, 2, 3]
    world.pass_time(900)
    world.report(10, checkpoint_step=10)
    world.settle()
    save(world, 20)
    assert ranks(world) == [0, 1, 2, 3]
    assert world.status["attempt"] == 1
    assert "restarts" not in world.status


def test_reduced_group_stays_reduced_over_a_restart() -> None:
    world = World(workers=ELASTIC)
    world.settle()
    world.run(0, 1)
    world.pass_time(600)
    world.settle()
    world.exit(1, 1)
    world.next_attempt()
    assert ranks(world) == [0, 1]


def test_worker_that_leaves_is_no_failure_even_when_it_is_wanted_back() -> None:
    world = elastic_world()
    world.edit(workers={"min": 1, "max": 3})
    world.settle()
    save(world, 20)
    world.edit(workers=ELASTIC)
    world.settle()
    save(world, 30)
    assert ranks(world) == [0, 1, 2], "rank 3 has not ended yet"
    world.end_deleted()
    world.settle()
    assert ranks(world) == [0, 1, 2, 3]
    assert world.status["attempt"] == 1
    assert world.told().count("Restarting") == 0


def test_worker_that_stays_and_is_lost_restarts_the_group() -> None:
    world = elastic_world()
    world.evict(1)
    world.next_attempt()
    assert world.status["attempt"] == 2
    assert ranks(world) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [{"min": 2, "max": 4}, {"min": 4, "max": 4}, {"min": 1, "max": 4}])
def test_bounds_that_still_hold_change_nothing(workers: dict[str, int]) -> None:
    world = World(workers=4).started()
    world.edit(workers=workers)
    world.settle()
    assert world.phase == "Running"
    assert world.status["attempt"] == 1
