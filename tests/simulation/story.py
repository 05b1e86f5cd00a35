"""What happens in a simulation: orders and faults at their moments, drawn from a seed or written by hand."""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

NAMES: Final = ("one", "two", "three")
HOME: Final = "one"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """`what` is a method of `World`; times in virtual seconds."""

    at: float
    what: str
    where: str = HOME
    other: str = ""
    """The other region of a cut."""
    for_s: float = 0.0
    """How long a fault lasts."""
    id: str = ""
    release: str | None = None
    """Of a promotion; or where to go back to, None: to the version before."""
    regions: tuple[str, ...] | None = NAMES
    policy: dict[str, Any] = field(default_factory=dict)
    patient: bool = False
    """Whether a promotion is ordered again while another one is running."""
    force: bool = False
    """Whether a move of the lead leaves a home region behind that does not answer."""
    by_s: float = 0.0
    """By how much a wall clock is set."""
    share: float = 0.3
    """Of what may be lost while something is losing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """Version v1 is live everywhere when it begins."""

    events: list[Event]
    bad: frozenset[tuple[str, str]] = frozenset()
    """(release, region) where every answer of the release is an error."""

    def __str__(self) -> str:
        told = [f"  {event}" for event in sorted(self.events, key=lambda event: event.at)]
        return "\n".join([f"bad: {sorted(self.bad)}", *told])


_FAULTS: Final = (
    "kill",
    "kill",
    "cut",
    "cut",
    "lose_messages",
    "take_database_away",
    "lose_commits",
    "end_gateway",
    "hang_gateway",
    "lose_gateway_calls",
    "crash_server",
    "break_store",
    "set_wall_clock",
)
_LASTS_S: Final = 70.0
_NEW: Final = ("v2", "v3", "v4")


def draw_story(seed: int) -> Story:
    """One to four orders and up to seven faults within `_LASTS_S`."""
    rng = Random(seed)
    bad = frozenset((release, region) for release in _NEW for region in NAMES if rng.random() < 0.12)
    orders = [_draw_promotion(rng, 0, at=0.0)]
    orders += [_draw_order(rng, number) for number in range(1, rng.choice((1, 2, 3, 4, 5)))]
    faults = [_draw_fault(rng, [order.at for order in orders]) for _ in range(rng.randint(0, 7))]
    return Story(events=[*orders, *faults], bad=bad)


def _draw_order(rng: Random, number: int) -> Event:
    at = rng.uniform(1.0, _LASTS_S)
    kind = rng.choice(("promotion", "promotion", "rollback", "regional", "abort", "move"))
    if kind == "promotion":
        return _draw_promotion(rng, number, at)
    if kind == "abort":
        return Event(at=at, what="abort")
    if kind == "move":
        return Event(at=at, what="move_home", where=rng.choice(NAMES), id=f"h-{number}", force=rng.random() < 0.5)
    target = rng.choice((None, None, "v1"))
    if kind == "regional":
        where = rng.choice(NAMES)
        return Event(at=at, what="roll_back", where=where, id=f"r-{number}", release=target, regions=(where,))
    regions = rng.choice((None, None, tuple(rng.sample(NAMES, rng.randint(1, 2)))))
    return Event(at=at, what="roll_back", id=f"r-{number}", release=target, regions=regions)


def _draw_promotion(rng: Random, number: int, at: float) -> Event:
    policy = {
        "steps_percent": rng.choice(([100], [50, 100], [25, 50, 100])),
        "watch_s": rng.choice((0.0, 0.0, 8.0)),
        "standby_s": rng.choice((0.0, 0.0, 15.0)),
        "prepare_ahead": rng.choice((0, 0, 1, 2)),
        "rollback_scope": rng.choice(("all", "all", "region")),
        "on_inconclusive": rng.choice(("back", "hold")),
        "step_timeout_s": rng.choice((10.0, 40.0)),
    }
    regions = NAMES if rng.random() < 0.7 else tuple(rng.sample(NAMES, rng.randint(1, 3)))
    release = "v2" if number == 0 else rng.choice(_NEW)
    patient = rng.random() < 0.7
    facts: dict[str, Any] = {"release": release, "regions": regions, "policy": policy, "patient": patient}
    return Event(at=at, what="promote", id=f"p-{number}", **facts)


def _draw_fault(rng: Random, ordered_at: list[float]) -> Event:
    """Often around the moment of an order: most of what can go wrong begins there."""
    where, other = rng.sample(NAMES, 2)
    around = max(0.0, rng.choice(ordered_at) + rng.uniform(-2.0, 4.0))
    return Event(
        at=rng.choice((around, rng.uniform(0.0, _LASTS_S))),
        what=rng.choice(_FAULTS),
        where=where,
        other=other,
        for_s=rng.choice((rng.uniform(0.0, 10.0), rng.uniform(0.0, 90.0))),
        by_s=rng.choice((-86_400.0, -60.0, 3_600.0)),
        share=rng.choice((0.1, 0.3, 1.0)),
    )
