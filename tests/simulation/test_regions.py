"""Whatever befalls three regions, what was acknowledged holds and all of it comes to an end (docs/guarantees.md).

A seed that falls is run alone with `pytest tests/simulation/test_regions.py -k 'seed[17]'`, more of them with
`make soak SEEDS=n`.
"""

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.simulation import simulate
from tests.simulation.story import HOME, NAMES, Event, Story, draw_story

PROMOTION = Event(at=0.0, what="promote", id="p-0", release="v2")


@pytest.mark.parametrize("seed", range(6))
def test_seed(seed: int) -> None:
    assert simulate(seed) == [], f"seed {seed}:\n{draw_story(seed)}"


def test_a_seed_tells_the_same_story_each_time() -> None:
    assert str(draw_story(5)) == str(draw_story(5)) != str(draw_story(6))


@pytest.mark.parametrize(
    "order",
    [
        Event(at=40.0, what="promote", id="p-1", release="v3"),
        Event(at=40.0, what="roll_back", id="r-1", regions=None),
        Event(at=40.0, what="roll_back", id="r-1", where="two", regions=("two",)),
    ],
    ids=lambda order: f"{order.what} in {order.where}",
)
def test_an_order_that_was_committed_is_led_although_its_answer_was_lost(order: Event) -> None:
    silence = Event(at=40.0, what="lose_commits", where=order.where, for_s=4.0, share=1.0)
    assert simulate(0, Story(events=[PROMOTION, silence, order])) == []


def test_a_rollback_is_led_although_the_database_goes_away_at_once() -> None:
    order = Event(at=40.0, what="roll_back", id="r-1", regions=None)
    silences = [Event(at=40.0 + late, what="take_database_away", where=HOME, for_s=5.0) for late in (0.01, 0.02, 0.03)]
    for silence in silences:
        assert simulate(0, Story(events=[PROMOTION, order, silence])) == []


def test_an_abort_holds_in_a_region_that_a_rollback_of_another_one_does_not_name() -> None:
    promotion = replace(PROMOTION, regions=("two", "three"))
    cut = Event(at=20.0, what="cut", where="one", other="two", for_s=30.0)
    abort = Event(at=21.0, what="abort")
    order = Event(at=22.0, what="roll_back", id="r-1", regions=("one",))
    assert simulate(1, Story(events=[promotion, cut, abort, order])) == []


def test_a_rollback_of_all_regions_goes_on_where_a_newer_one_of_some_does_not_reach() -> None:
    everywhere = Event(at=60.0, what="roll_back", id="r-1", regions=None)
    at_home = Event(at=60.5, what="roll_back", id="r-2", regions=("one",))
    assert simulate(0, Story(events=[PROMOTION, everywhere, at_home])) == []


def test_a_region_that_missed_a_rollback_owes_it_although_others_are_promoted() -> None:
    held = replace(PROMOTION, policy={"prepare_ahead": 1})
    stops = Event(at=0.0, what="break_store", where="one", for_s=60.0)
    cut = Event(at=20.0, what="cut", where="one", other="two", for_s=60.0)
    everywhere = Event(at=22.0, what="roll_back", id="r-1", regions=None)
    elsewhere = Event(at=23.0, what="promote", id="p-1", release="v3", regions=("three", "one"), patient=True)
    assert simulate(0, Story(events=[held, stops, cut, everywhere, elsewhere])) == []


@pytest.mark.parametrize("killed", ["one", "two"])
@pytest.mark.parametrize("late_s", [0.01, 0.05, 0.2])
def test_the_lead_moves_although_an_agent_dies_meanwhile(killed: str, late_s: float) -> None:
    move = Event(at=8.0, what="move_home", where="two", id="h-1")
    kill = Event(at=8.0 + late_s, what="kill", where=killed, for_s=20.0)
    assert simulate(0, Story(events=[PROMOTION, move, kill])) == []


def test_what_two_home_regions_took_behind_each_others_back_ends_alike_everywhere() -> None:
    cuts = [Event(at=6.0, what="cut", where="one", other=other, for_s=60.0) for other in ("two", "three")]
    move = Event(at=8.0, what="move_home", where="two", id="h-1", force=True)
    left = Event(at=20.0, what="promote", where="one", id="p-1", release="v3", regions=("one",), patient=True)
    right = Event(at=20.0, what="promote", where="two", id="p-2", release="v4", patient=True)
    assert simulate(0, Story(events=[PROMOTION, *cuts, move, left, right])) == []


def test_a_lead_that_moves_on_before_everybody_has_heard_of_it_is_followed_at_last() -> None:
    cut = Event(at=0.0, what="cut", where="two", other="three", for_s=60.0)
    moves = [Event(at=8.0, what="move_home", where="two", id="h-1")]
    moves += [Event(at=9.0 + n, what="move_home", where=where, id=f"h-{where}", force=True) for n, where in _MOVES]
    assert simulate(0, Story(events=[PROMOTION, cut, *moves])) == []


_MOVES = [(0.0, "three"), (0.0, "one"), (4.0, "three")]


HELD = {"on_inconclusive": "hold", "min_requests": 10**9}
"""The canary waits for ever, unless a person promotes."""


def lose(region: str, at: float, for_s: float) -> list[Event]:
    others = [name for name in NAMES if name != region]
    return [Event(at=at, what="cut", where=region, other=other, for_s=for_s) for other in others]


def test_a_canary_that_waits_in_a_lost_home_region_gives_way_to_what_was_ordered_meanwhile() -> None:
    held = replace(PROMOTION, policy=HELD)
    move = Event(at=12.0, what="move_home", where="two", id="h-1", force=True)
    later = Event(at=15.0, what="promote", where="two", id="p-1", release="v3", patient=True)
    assert simulate(0, Story(events=[held, *lose("one", 10.0, 40.0), move, later])) == []


def test_a_lost_home_region_that_takes_the_lead_back_leads_what_was_ordered_meanwhile() -> None:
    moves = [Event(at=1.0, what="move_home", where="two", id="h-1", force=True)]
    later = Event(at=2.0, what="promote", where="two", id="p-1", release="v3", regions=("two", "three"))
    moves += [Event(at=10.05, what="move_home", where="one", id="h-2", force=True)]
    assert simulate(0, Story(events=[*lose("one", 0.0, 10.0), *moves, later])) == []


def test_two_home_regions_that_were_lost_one_after_another_are_both_merged() -> None:
    held = replace(PROMOTION, policy=HELD)
    moves = [Event(at=12.0, what="move_home", where="two", id="h-1", force=True)]
    moves += [Event(at=27.0, what="move_home", where="three", id="h-2", force=True)]
    facts: dict[str, Any] = {"release": "v3", "regions": ("two", "three"), "policy": HELD}
    later = Event(at=14.0, what="promote", where="two", id="p-1", **facts)
    abort = Event(at=130.0, what="abort", where="three")
    cuts = [*lose("one", 10.0, 50.0), *lose("two", 25.0, 60.0)]
    assert simulate(0, Story(events=[held, *cuts, *moves, later, abort])) == []
