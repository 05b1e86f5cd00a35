"""A rollout as JSON: what the registry keeps and what peers and users are shown."""

from typing import Any

from serving.errors import InvalidInput
from serving.regions.deciding.gates import GateResult
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import Rollout, Step
from serving.regions.deciding.windows import parse_snapshot
from serving.releases import Release


def read_rollout(document: dict[str, Any]) -> Rollout:
    """The inverse of `Rollout.to_json`."""
    baseline = document["baseline"]
    return Rollout(
        **{
            **document,
            "release": Release.from_json(document["release"]),
            "policy": PromotionPolicy.from_json(document["policy"]),
            "baseline": None if baseline is None else parse_snapshot(baseline),
            "steps": [_step(step) for step in document["steps"]],
        }
    )


def _step(raw: dict[str, Any]) -> Step:
    return Step(**{**raw, "gates": [GateResult(**gate) for gate in raw["gates"]]})


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
        "steps": document["steps"],
    }


def read_order(id: str, region: str, order: Any, *, now: float) -> Rollout:
    """The rollout that a home agent orders: `{"schema_version": 1, "release", "version", "policy", "hold"?}`."""
    if (
        not isinstance(order, dict)
        or order.get("schema_version") != 1
        or not isinstance(order.get("version"), int)
        or not isinstance(order.get("hold", False), bool)
    ):
        raise InvalidInput(
            "rollout order is malformed", got=order, expected="schema_version 1, release, version, policy, hold"
        )
    return Rollout(
        id=id,
        region=region,
        release=Release.from_json(order.get("release")),
        version=order["version"],
        policy=PromotionPolicy.from_json(order.get("policy")),
        held=order.get("hold", False),
        started_at=now,
    )
