"""What a promotion does next. Pure.

Regions go live one after another. When one rolls back, or the order is aborted, the regions that this
promotion had changed are taken back, all at once, or just the failing one if the policy says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from serving.regions.deciding.promotion_state import RUNNING, Promotion, is_taken_back
from serving.regions.deciding.rollout_state import ABORTED, LIVE, QUEUED, ROLLED_BACK


class Move(StrEnum):
    ADVANCE = "advance"
    """Order the region's rollout, or ask how it is doing: one idempotent call."""
    TAKE_BACK = "take back"
    WAIT = "wait"
    """It is paused before its next region."""
    END = "end"
    """Begin to take back what this promotion has changed."""
    FINISH = "finish"


@dataclass(frozen=True, kw_only=True, slots=True)
class Next:
    move: Move
    region: str = ""
    ahead: tuple[str, ...] = ()
    """Regions whose servers start meanwhile; they hold there."""
    beside: tuple[str, ...] = ()
    """Regions of which the same is asked at once."""
    state: str = ""
    reason: str | None = None


def decide_promotion(promotion: Promotion) -> Next:
    """The next step of a running promotion."""
    if promotion.ending is not None:
        return _decide_taking_back(promotion, promotion.ending)
    parts = {region: promotion.parts.get(region, {"state": QUEUED}) for region in promotion.regions}
    for region, part in parts.items():
        # One that goes back may take long to move its users; the others do not wait for that.
        back = part["state"] if part["state"] in (ROLLED_BACK, ABORTED) else part.get("ending")
        if back:
            return Next(move=Move.END, region=region, state=back, reason=part.get("reason"))
    waiting = [region for region, part in parts.items() if part["state"] != LIVE]
    if not waiting:
        return Next(move=Move.FINISH, state=LIVE)
    if promotion.paused and waiting[0] not in promotion.parts:
        return Next(move=Move.WAIT)
    ahead = tuple(waiting[1 : 1 + promotion.policy.prepare_ahead])
    return Next(move=Move.ADVANCE, region=waiting[0], ahead=ahead)


def _decide_taking_back(promotion: Promotion, ending: str) -> Next:
    to_go_back = [region for region in reversed(promotion.regions) if is_to_go_back(promotion, region)]
    back = [region for region in to_go_back if region not in promotion.owed]
    if back:
        return Next(move=Move.TAKE_BACK, region=back[0], beside=tuple(back[1:]))
    return Next(move=Move.FINISH, state=ending, reason=promotion.reason)


def is_to_go_back(promotion: Promotion, region: str) -> bool:
    """Whether something of a promotion that is being taken back is left in the region."""
    part = promotion.parts.get(region)
    if part is None or is_taken_back(part):
        return False
    kept = part["state"] == LIVE and promotion.policy.rollback_scope == "region" and not part.get("ending")
    return not kept


def overtaken_by(region: str, later: Sequence[Promotion]) -> str | None:
    """The later promotion of the model that put its release live in the region: what came before it is over there."""
    ended = (p for p in later if p.state != RUNNING and region not in p.owed)
    return next((p.id for p in ended if region in p.parts and p.parts[region]["state"] == LIVE), None)


def is_awaited(region: str, later: Sequence[Promotion]) -> bool:
    """Whether a later promotion is at work in the region: it decides what is served there."""
    return any(p.state == RUNNING and region in p.parts and p.parts[region]["state"] != QUEUED for p in later)


def reopened_by(promotion: Promotion, part: dict[str, Any]) -> Promotion | None:
    """The promotion to be taken back after all, because a region went back while it watched its live version."""
    if promotion.state != LIVE or part["state"] not in (ROLLED_BACK, ABORTED):
        return None
    return replace(
        promotion, state=RUNNING, ending=ROLLED_BACK, reason=part["reason"], finished_at=None, watching=False
    )


def is_watched(promotion: Promotion) -> bool:
    """Whether any region still watches what this promotion put live."""
    return any(part["state"] == LIVE and not part["settled"] for part in promotion.parts.values())
