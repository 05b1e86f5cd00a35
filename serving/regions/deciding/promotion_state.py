"""A promotion over all its regions: what it is and, purely, what comes next.

Regions go live one after another. When one rolls back, or the order is aborted, the regions that this
promotion had changed are taken back in reverse order, or just the failing one if the policy says so.
"""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from serving.errors import InvalidInput
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import ABORTED, LIVE, QUEUED, ROLLED_BACK
from serving.releases import Release

RUNNING: Final = "running"


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """The persisted state of an order."""

    id: str
    release: Release
    version: int
    policy: PromotionPolicy
    regions: list[str]
    ordered_at: float
    state: str = RUNNING
    """`running` | `live` | `rolled_back` | `aborted`."""
    reason: str | None = None
    finished_at: float | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each region last said of its rollout; a region that was never asked has none."""
    ending: str | None = None
    """`rolled_back` | `aborted` from the moment at which regions are taken back."""
    owed: list[str] = field(default_factory=list)
    """Regions that did not answer when they were to be taken back; they are told when they answer again."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_promotion(document: dict[str, Any]) -> Promotion:
    """The inverse of `Promotion.to_json`."""
    release, policy = Release.from_json(document["release"]), PromotionPolicy.from_json(document["policy"])
    return Promotion(**{**document, "release": release, "policy": policy})


def same_order(promotion: Promotion, order: "Order") -> bool:
    return (promotion.release, promotion.policy, promotion.regions) == (order.release, order.policy, order.regions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a promoter asks for, checked as far as it can be without looking anything up."""

    release: Release
    policy: PromotionPolicy
    regions: list[str]


def read_order(raw: Any, known_regions: list[str]) -> Order:
    """Parse an order; raises InvalidInput that names what does not hold."""
    if not isinstance(raw, dict) or set(raw) - {"schema_version", "release", "policy", "regions"}:
        raise InvalidInput("order is malformed", got=raw, expected="schema_version, release, policy, regions")
    if raw.get("schema_version") != 1:
        raise InvalidInput("order has an unknown schema_version", got=raw.get("schema_version"), expected=1)
    regions = raw.get("regions")
    if not isinstance(regions, list) or not regions or len(set(map(str, regions))) != len(regions):
        raise InvalidInput("regions is malformed", got=regions, expected="at least one region, none twice")
    for region in regions:
        if region not in known_regions:
            raise InvalidInput("unknown region", got=region, expected=" | ".join(known_regions))
    return Order(
        release=Release.from_json(raw.get("release")),
        policy=PromotionPolicy.from_json(raw.get("policy", {})),
        regions=regions,
    )


class Move(StrEnum):
    ADVANCE = "advance"
    """Order the region's rollout, or ask how it is doing: one idempotent call."""
    TAKE_BACK = "take back"
    END = "end"
    """Begin to take back what this promotion has changed."""
    FINISH = "finish"


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    move: Move
    region: str = ""
    ahead: tuple[str, ...] = ()
    """Regions whose servers start meanwhile; they hold there."""
    state: str = ""
    reason: str | None = None


def decide_promotion(promotion: Promotion) -> Next:
    """The next step of a running promotion."""
    if promotion.ending is not None:
        return _decide_taking_back(promotion, promotion.ending)
    parts = {region: promotion.parts.get(region, {"state": QUEUED}) for region in promotion.regions}
    for region, part in parts.items():
        if part["state"] in (ROLLED_BACK, ABORTED):
            return Next(move=Move.END, region=region, state=part["state"], reason=part.get("reason"))
    waiting = [region for region, part in parts.items() if part["state"] != LIVE]
    if not waiting:
        return Next(move=Move.FINISH, state=LIVE)
    ahead = tuple(waiting[1 : 1 + promotion.policy.prepare_ahead])
    return Next(move=Move.ADVANCE, region=waiting[0], ahead=ahead)


def _decide_taking_back(promotion: Promotion, ending: str) -> Next:
    for region in reversed(promotion.regions):
        part = promotion.parts.get(region)
        if part is None or is_taken_back(part) or region in promotion.owed:
            continue
        if part["state"] == LIVE and promotion.policy.rollback_scope == "region" and not part.get("ending"):
            continue
        return Next(move=Move.TAKE_BACK, region=region)
    return Next(move=Move.FINISH, state=ending, reason=promotion.reason)


def is_taken_back(part: dict[str, Any]) -> bool:
    """Whether nothing of this promotion is left to undo in the region."""
    return part["state"] in (ROLLED_BACK, ABORTED) or not part["changed"] or part["revert_failure"] is not None


def end(promotion: Promotion, ending: str, reason: str | None) -> Promotion:
    """From here on regions are taken back; the first reason stays."""
    return promotion if promotion.ending is not None else replace(promotion, ending=ending, reason=reason)


def finish(promotion: Promotion, state: str, now: float) -> Promotion:
    """Say in the reason what could not be taken back."""
    kept = [part["revert_failure"] for part in promotion.parts.values() if part["revert_failure"]]
    silent = [f"{region} did not answer and is taken back when it does" for region in promotion.owed]
    reason = "; ".join(filter(None, [promotion.reason, *kept, *silent])) or None
    return replace(promotion, state=state, reason=reason, finished_at=now)


def unasked(promotion: Promotion, region: str) -> dict[str, Any]:
    """A region's entry before its agent has answered for the first time."""
    return {
        "id": promotion.id,
        "region": region,
        "model": promotion.release.model,
        "release": promotion.release.id,
        "state": QUEUED,
        "percent": None,
        "reason": None,
        "version": promotion.version,
        "previous_version": None,
        "started_at": None,
        "finished_at": None,
        "endpoint": None,
        "changed": True,
        "ending": None,
        "revert_failure": None,
        "held": False,
        "settled": False,
        "steps": [],
    }


def show_promotion(promotion: Promotion) -> dict[str, Any]:
    """The answer of GET /v1/promotions/{id}; the fields of docs/api.md."""
    return {
        "id": promotion.id,
        "model": promotion.release.model,
        "release": promotion.release.id,
        "version": promotion.version,
        "state": promotion.state,
        "reason": promotion.reason,
        "ordered_at": promotion.ordered_at,
        "finished_at": promotion.finished_at,
        "policy": promotion.policy.to_json(),
        "regions": [promotion.parts.get(region) or unasked(promotion, region) for region in promotion.regions],
    }
