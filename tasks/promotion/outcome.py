"""How a promotion ended, as Flyte carries it: the agents' JSON with types."""

from dataclasses import dataclass, field, fields
from typing import Any

from serving.errors import InvalidInput

FINAL_STATES = ("live", "rolled_back", "aborted")


@dataclass(kw_only=True)
class GateOutcome:
    gate: str
    status: str
    """passed | failed | inconclusive"""
    measured: float | None
    allowed: float | None
    unit: str
    note: str = ""


_GATE_FIELDS = tuple(entry.name for entry in fields(GateOutcome))
"""An agent of a later version may tell more."""


@dataclass(kw_only=True)
class StepOutcome:
    state: str
    percent: int
    started_at: float
    finished_at: float
    """Seconds since the epoch."""
    requests: int
    synthetic: int
    """Of `requests`, those that the agent replayed for want of users."""
    gates: list[GateOutcome] = field(default_factory=list)


@dataclass(kw_only=True)
class RegionOutcome:
    region: str
    state: str
    reason: str
    version: int
    previous_version: int
    """0 when no version was live before."""
    endpoint: str
    steps: list[StepOutcome] = field(default_factory=list)


@dataclass(kw_only=True)
class PromotionOutcome:
    promotion_id: str
    release_id: str
    model: str
    version: int
    state: str
    reason: str
    seconds: float
    actor: str = ""
    """Who ordered it."""
    attempt: int = 1
    evidence: str = ""
    """What its gates took for evidence, and their margins."""
    regions: list[RegionOutcome] = field(default_factory=list)


def outcome_from_json(raw: dict[str, Any]) -> PromotionOutcome:
    """Read what `GET /v1/promotions/{id}` answered for a finished promotion."""
    try:
        return PromotionOutcome(
            promotion_id=raw["id"],
            release_id=raw["release"],
            model=raw["model"],
            version=int(raw["version"] or 0),
            state=raw["state"],
            reason=raw["reason"] or "",
            seconds=max(0.0, (raw["finished_at"] or raw["ordered_at"]) - raw["ordered_at"]),
            actor=str(raw.get("actor", "")),
            attempt=int(raw.get("attempt", 1)),
            evidence=describe_evidence(raw["policy"]),
            regions=[region_from_json(region) for region in raw["regions"]],
        )
    except (KeyError, TypeError, ValueError) as broken:
        raise InvalidInput("agent answered no promotion", got=raw, expected="see docs/api.md") from broken


def describe_evidence(policy: dict[str, Any]) -> str:
    """The policy's margins and whose requests counted, in a sentence for the report."""
    whose = "users' and replayed requests" if policy["synthetic_evidence"] else "users' requests"
    return (
        f"evidence: {whose}; margins: errors +{100 * policy['error_margin']:g} points, "
        f"refusals +{100 * policy['refusal_margin']:g} points, latency +{100 * policy['latency_margin']:g} %, "
        f"accuracy -{100 * policy['max_accuracy_drop']:g} points; must pass: {', '.join(policy['required_gates'])}; "
        f"if inconclusive: {policy['on_inconclusive']}"
    )


def region_from_json(raw: dict[str, Any]) -> RegionOutcome:
    """One region's part."""
    return RegionOutcome(
        region=raw["region"],
        state=raw["state"],
        reason=raw["reason"] or "",
        version=int(raw["version"] or 0),
        previous_version=int(raw["previous_version"] or 0),
        endpoint=raw["endpoint"],
        steps=[_step(step) for step in raw["steps"]],
    )


def _step(raw: dict[str, Any]) -> StepOutcome:
    return StepOutcome(
        state=raw["state"],
        percent=int(raw["percent"] or 0),
        started_at=float(raw["started_at"]),
        finished_at=float(raw["finished_at"] or raw["started_at"]),
        requests=int(raw["requests"]),
        synthetic=int(raw["synthetic"]),
        gates=[GateOutcome(**{name: gate[name] for name in _GATE_FIELDS}) for gate in raw["gates"]],
    )
