"""A clock that the machine's wall clock cannot move."""

from pathlib import Path

from serving.regions.acting.steady_clock import SteadyClock


class Machine:
    """A wall clock, a clock since boot and the id of the boot."""

    def __init__(self) -> None:
        self.wall, self.since_boot, self.boot = 1_000_000.0, 500.0, "boot-1\n"

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.since_boot += seconds

    def clock(self, file: Path) -> SteadyClock:
        return SteadyClock(file, wall=lambda: self.wall, since_boot=lambda: self.since_boot, boot_id=lambda: self.boot)


def test_a_wall_clock_that_is_set_moves_nothing(tmp_path: Path) -> None:
    machine = Machine()
    clock = machine.clock(tmp_path / "clock.json")
    assert clock() == 1_000_000.0
    for jump in (3600.0, -7200.0):
        machine.wall += jump
        machine.pass_s(1.0)
    assert clock() == 1_000_002.0


def test_the_next_agent_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    machine, file = Machine(), tmp_path / "clock.json"
    machine.clock(file).save()
    machine.pass_s(60.0)
    machine.wall -= 3600.0
    assert machine.clock(file)() == 1_000_060.0


def test_after_the_machine_started_anew_it_follows_the_wall_clock_but_never_back(tmp_path: Path) -> None:
    machine, file = Machine(), tmp_path / "clock.json"
    machine.clock(file).save()
    machine.boot, machine.since_boot = "boot-2\n", 3.0
    machine.wall += 120.0
    assert machine.clock(file)() == 1_000_120.0
    machine.wall = 0.0
    assert machine.clock(file)() == 1_000_000.0


def test_a_file_that_was_cut_off_is_no_clock(tmp_path: Path) -> None:
    machine, file = Machine(), tmp_path / "clock.json"
    file.write_text('{"boot_id": "boot-1", "booted')
    assert machine.clock(file)() == 1_000_000.0
