"""What a gateway counted lately: as far back as the window, sample by sample."""

from serving.counters import Snapshot
from serving.regions.deciding.recent import RecentCounts
from tests.fakes.counted import BOUNDS_MS, counters


def reading(answered: int, boot_id: str = "a") -> Snapshot:
    return Snapshot(boot_id=boot_id, bounds_ms=BOUNDS_MS, backends={"x": counters(answered=answered)})


def test_counts_are_those_since_the_oldest_reading_in_the_window() -> None:
    recent = RecentCounts(window_s=100.0, sample_s=10.0)
    for now in range(0, 300, 5):
        recent.note("m", reading(now), float(now))
    # At 295 the readings of 190 and later are within the window; that of 190 is the first.
    assert recent.until("m", reading(295)).of("x").users.answered == 295 - 190


def test_readings_between_two_samples_are_not_kept() -> None:
    recent = RecentCounts(window_s=100.0, sample_s=10.0)
    recent.note("m", reading(1), 0.0)
    recent.note("m", reading(7), 9.9)
    assert recent.until("m", reading(10)).of("x").users.answered == 9


def test_what_was_never_noted_counts_nothing_and_a_new_boot_from_its_start() -> None:
    recent = RecentCounts(window_s=100.0, sample_s=10.0)
    assert recent.until("m", reading(10)).of("x").users.answered == 0
    recent.note("m", reading(5), 0.0)
    assert recent.until("m", reading(3, "b")).of("x").users.answered == 3
