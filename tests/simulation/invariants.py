"""What must hold at the end of a story, whatever happened in it: each broken promise in words."""

from collections.abc import Iterator
from typing import Any

from serving.errors import NotFound
from serving.regions.deciding.promotion_state import RUNNING
from serving.regions.deciding.rollout_state import ABORTED
from tests.simulation.agent import SimulatedAgent
from tests.simulation.story import NAMES, Event, Story
from tests.simulation.world import MODEL, World

FIRST = "v1"


def broken(world: World, story: Story) -> list[str]:
    """Empty when every promise was kept."""
    lost = list(_lost_orders(world))
    found = [*world.violations, *world.network.bugs, *lost, *_stuck(world)]
    for name in NAMES:
        agent = world.agents[name]
        if agent is None:
            found.append(f"{name} has no agent")
            continue
        found += _apart(world, name, agent)
        live = _live(agent)
        if (live, name) in story.bad:
            found.append(f"{name} serves {live}, which is bad there")
        if not lost and not _stuck(world) and live != (due := last_word(world, name, agent)):
            found.append(f"{name} serves {live}, and the last word says {due}")
    return found


def _live(agent: SimulatedAgent) -> str | None:
    live = agent.registry.live(MODEL)
    return None if live is None else live.release_id


def _lost_orders(world: World) -> Iterator[str]:
    """What was acknowledged must be known to whoever acknowledged it, and to the home region in the end."""
    for id, event in world.acknowledged.items():
        agent = world.agents[event.where]
        if agent is None or event.what in ("abort", "move_home"):
            continue
        for keeper in (agent, world.home()):
            try:
                _document(keeper, event)
            except NotFound:
                yield f"{keeper.name} does not know {id} any more, which {event.where} acknowledged"


def _document(agent: SimulatedAgent, event: Event) -> dict[str, Any]:
    """Raises NotFound."""
    if event.what == "promote":
        return agent.registry.promotion(event.id)
    at_home = agent.rollback_leader._store.find(event.id)
    return agent.rollbacks._store.read(event.id) if at_home is None else at_home


def _stuck(world: World) -> list[str]:
    """Promotions, rollbacks, rollouts and debts that have not come to an end, loops without progress."""
    found = [f"{id} is still open at home" for id in world.open_orders()] + world.apart_on_home()
    for name, agent in world.agents.items():
        if agent is None:
            continue
        found += [f"rollout {d['id']} is not settled in {name}" for d in agent.registry.rollouts_under_way()]
        found += [f"rollback {r.id} is not settled in {name}" for r in agent.rollbacks.under_way()]
        found += [f"{name}: {loop}" for loop in agent.loops.stuck()]
    return found


def _apart(world: World, name: str, agent: SimulatedAgent) -> Iterator[str]:
    """Registry, route and servers of a region say the same."""
    place, live = world.places[name], _live(agent)
    route = place.gateway.in_force.get(MODEL)
    served = [] if route is None else [(b.release, b.weight) for b in route.backends if b.weight and not b.remote]
    if served != ([] if live is None else [(live, 100)]):
        yield f"{name} routes to {served}, and {live} is live"
    wanted = agent.serving.wanted()
    for release in sorted(set(place.machine.running) - wanted):
        yield f"{name} runs a server of {release}, which nobody wants"
    for release in sorted(wanted - set(place.machine.running)):
        yield f"{name} runs no server of {release}"


# The last word


def last_word(world: World, name: str, agent: SimulatedAgent) -> str | None:
    """What the region must serve: the newest word that came to something there.

    Home's words count in the order in which home took them; a rollback that the region took for itself counts after
    those of home's that it knew then.
    """
    home = world.home().registry
    words = sorted(
        [*(("promotion", d) for d in home.promotions(limit=1000)), *(("rollback", d) for d in _home_rollbacks(world))],
        key=lambda word: (*word[1]["ordered_in"].values(), word[1]["ordered_at"]),
    )
    outcomes = [(_arrival(agent, kind, d["id"]), _outcome(world, d, name)) for kind, d in words]
    for document in _regional(agent):
        known = [index for index, (arrived, _) in enumerate(outcomes) if arrived <= document["ordered_at"]]
        went = [document["release"]] if document["state"] == "live" else []
        outcomes.insert(max(known, default=-1) + 1, (document["ordered_at"], went))
    return next((went[0] for _, went in reversed(outcomes) if went), FIRST)


def _home_rollbacks(world: World) -> list[dict[str, Any]]:
    regional = {d["id"] for agent in world.agents.values() if agent is not None for d in _regional(agent)}
    return [d for d in world.home().rollback_leader._store.newest(limit=1000) if d["id"] not in regional]


def _regional(agent: SimulatedAgent) -> list[dict[str, Any]]:
    """Oldest first."""
    newest = agent.rollbacks._store.newest(limit=1000)
    return sorted((d for d in newest if "asked" in d["order"]), key=lambda d: d["ordered_at"])


def _arrival(agent: SimulatedAgent, kind: str, id: str) -> float:
    """When the region heard of one of home's words; infinite if it never did."""
    try:
        if kind == "promotion":
            return float(agent.registry.rollout(id)["started_at"])
        return float(agent.rollbacks._store.read(id)["ordered_at"])
    except NotFound:
        return float("inf")


def _outcome(world: World, document: dict[str, Any], name: str) -> list[str | None]:
    """What a word put live in the region by its own account; nothing if it came to nothing there, or had to."""
    part = document["parts"].get(name)
    if part is None or document["state"] == RUNNING or part["state"] != "live":
        return []
    aborted = f"abort {document['id']}" in world.acknowledged and document["state"] == ABORTED
    if aborted and document["policy"]["rollback_scope"] == "all" and part["revert_failure"] is None:
        return []
    return [part["release"]]
