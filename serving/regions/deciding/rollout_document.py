"""A rollout as JSON: what the registry keeps and what peers and users are shown.

Agents of different ages read each other's documents: what they do not know is left out, what is missing is a default.
"""

from dataclasses import fields
from typing import Any, Final

from serving.counters import Counters, Snapshot, latency_bounds_ms, parse_snapshot
from serving.errors import BadUpstream, InvalidInput
from serving.regions.deciding.evidence import Scores, Window
from serving.regions.deciding.gates import GateResult
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import Rollout, Step
from serving.releases import Release


def read_rollout(document: dict[str, Any]) -> Rollout:
    """The inverse of `Rollout.to_json`."""
    return Rollout(
        **{
            **_known(Rollout, document),
            "release": Release.from_document(document["release"]),
            "policy": PromotionPolicy.from_peer(document["policy"]),
            "baseline": _snapshot(document["baseline"]),
            "opening": _snapshot(document.get("opening")),
            "recorded": _recorded(document.get("recorded")),
            "scores": Scores(**_known(Scores, document.get("scores", {}))),
            "earlier": read_windows(document.get("earlier", [])),
            "evidence": read_windows(document.get("evidence", [])),
            "steps": [_step(step) for step in document["steps"]],
        }
    )


def _known(kind: Any, raw: dict[str, Any]) -> dict[str, Any]:
    return {entry.name: raw[entry.name] for entry in fields(kind) if entry.name in raw}


def _snapshot(raw: dict[str, Any] | None) -> Snapshot | None:
    """None for one that another version of the counters wrote: the window then begins anew."""
    try:
        return None if raw is None else parse_snapshot(raw)
    except BadUpstream:
        return None


def _recorded(raw: dict[str, Any] | None) -> Counters | None:
    """The live version's counts; None for those of other latency buckets than today's."""
    try:
        return None if raw is None else Counters.from_json(raw, latency_bounds_ms())
    except (KeyError, TypeError, ValueError):
        return None


def _step(raw: dict[str, Any]) -> Step:
    return Step(**{**_known(Step, raw), "gates": [GateResult.from_json(gate) for gate in raw["gates"]]})


def read_windows(raw: Any) -> list[Window]:
    """Evidence as `Window.to_json` wrote it; raises InvalidInput."""
    try:
        return [Window.from_json(window) for window in raw]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as broken:
        raise InvalidInput("evidence is malformed", got=repr(broken), expected="windows of other regions") from broken


def show_rollout(rollout: Rollout, *, endpoint: str) -> dict[str, Any]:
    """The region's entry in a promotion; the fields of docs/api.md."""
    document = rollout.to_json()
    return {
        "id": rollout.id,
        "region": rollout.region,
        "model": rollout.release.model,
        "release": rollout.release.id,
        "state": rollout.state,
        "percent": rollout.percent,
        "reason": rollout.reason,
        "version": rollout.version,
        "previous_version": rollout.previous_version,
        "started_at": rollout.started_at,
        "finished_at": rollout.finished_at,
        "endpoint": endpoint,
        "changed": rollout.changed,
        "ending": rollout.ending,
        "revert_failure": rollout.revert_failure,
        "held": rollout.held,
        "settled": rollout.settled,
        "watching": rollout.watching,
        "paused": rollout.paused,
        "waiting_for": rollout.waiting_for,
        "actor": rollout.actor,
        "steps": document["steps"],
        "evidence": document["evidence"],
    }


def read_order(id: str, region: str, order: Any, *, now: float) -> Rollout:
    """The rollout that a home agent orders; a field that this agent does not know is a younger one's and ignored.

    `{"schema_version": 1, "release", "version", "policy", "hold"?, "paused"?, "promoted_by"?, "actor"?, "regions"?,
    "evidence"?}`
    """
    expected = "schema_version 1, release, version, policy, hold, paused, promoted_by, actor, regions, evidence"
    if not isinstance(order, dict) or order.get("schema_version") != 1:
        raise InvalidInput("rollout order is malformed", got=order, expected=expected)
    types: dict[str, type | tuple[type, ...]] = {
        "version": int,
        "hold": bool,
        "paused": bool,
        "promoted_by": (str, type(None)),
        "actor": str,
        "regions": int,
    }
    given = {**_DEFAULTS, **order}
    for name, kind in types.items():
        if not isinstance(given.get(name), kind):
            raise InvalidInput(f"{name} of the rollout order is malformed", got=order.get(name), expected=expected)
    return Rollout(
        id=id,
        region=region,
        release=Release.from_json(order.get("release")),
        version=given["version"],
        policy=PromotionPolicy.from_peer(order.get("policy")),
        held=given["hold"],
        paused=given["paused"],
        promoted_by=given["promoted_by"],
        actor=given["actor"],
        regions=max(1, given["regions"]),
        earlier=read_windows(order.get("evidence", [])),
        started_at=now,
    )


_DEFAULTS: Final = {"hold": False, "paused": False, "promoted_by": None, "actor": "", "regions": 1}
