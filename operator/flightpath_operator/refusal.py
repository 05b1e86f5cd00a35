"""The plan for an object that cannot be carried out: nothing is touched, and a condition says why."""

from datetime import timedelta

from flightpath_operator.conditions import notes_of_transitions, set_condition
from flightpath_operator.plan import Object, Plan


def refuse(parent: Object, reason: str, message: str, *, now: float, again_in: timedelta | None = None) -> Plan:
    """Accepted False (and Ready False), the rest of the status as it was, Pending if it was nothing. Only an edit
    changes the answer, so it is not asked again unless `again_in` says so. Children that run stay as they are."""
    generation = parent["metadata"].get("generation", 0)
    old = parent.get("status") or {}
    before: list[Object] = list(old.get("conditions") or [])
    conditions = before
    for type_ in ("Accepted", "Ready"):
        conditions = set_condition(conditions, type_, False, reason, message, now=now, generation=generation)
    return Plan(
        status={"phase": "Pending"} | old | {"observedGeneration": generation, "conditions": conditions},
        notes=notes_of_transitions(before, conditions, good={"Accepted"}, bad=()),
        again_in=again_in,
    )
