"""A promotion over all its regions: the order, the persisted state, and how it is shown. Pure.

It has an id of its own, apart from its release's: one that failed is tried again under another id, with neither a new
release nor a training. `promotion_decision.py` says what comes next.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from serving.errors import InvalidInput
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollout_state import ABORTED, QUEUED, ROLLED_BACK
from serving.regions.registry.epochs import BEFORE_EPOCHS, Epoch, Word, read_epoch
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
    actor: str = ""
    """Who ordered it."""
    attempt: int = 1
    """Of this release: 1, 2, 3 …"""
    paused: bool = False
    promoted_by: str | None = None
    """Who decided that no more evidence is waited for."""
    watching: bool = False
    """Whether regions still hold the live version against the one before; they go back by themselves."""
    ordered_in: Epoch = BEFORE_EPOCHS

    @property
    def word(self) -> Word:
        """What orders it among all that were ever ordered for its model, by whichever home region."""
        return self.ordered_in, self.ordered_at

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_promotion(document: dict[str, Any]) -> Promotion:
    """The inverse of `Promotion.to_json`."""
    known = {name: value for name, value in document.items() if name in _KNOWN}
    release, policy = Release.from_document(document["release"]), PromotionPolicy.from_peer(document["policy"])
    ordered_in = read_epoch(document["ordered_in"]) if "ordered_in" in document else BEFORE_EPOCHS
    return Promotion(**{**known, "release": release, "policy": policy, "ordered_in": ordered_in})


_KNOWN: Final = frozenset(entry.name for entry in fields(Promotion))


def same_order(promotion: Promotion, order: "Order") -> bool:
    """Whether the order asks for this promotion: once it is over, its policy decides nothing any more."""
    if (promotion.release, promotion.regions) != (order.release, order.regions):
        return False
    return promotion.state != RUNNING or promotion.policy == order.policy


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


def is_open(promotion: Promotion) -> bool:
    """Whether anybody has to be asked or told something."""
    return promotion.state == RUNNING or bool(promotion.owed) or promotion.watching


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
        "watching": False,
        "paused": False,
        "waiting_for": None,
        "actor": promotion.actor,
        "steps": [],
        "evidence": [],
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
        "actor": promotion.actor,
        "attempt": promotion.attempt,
        "paused": promotion.paused,
        "promoted_by": promotion.promoted_by,
        "watching": promotion.watching,
        "policy": promotion.policy.to_json(),
        "regions": [_shown(promotion, region) for region in promotion.regions],
    }


def _shown(promotion: Promotion, region: str) -> dict[str, Any]:
    """Without the counts that regions hand to each other; what an older agent does not tell has its default."""
    part = {**unasked(promotion, region), **promotion.parts.get(region, {})}
    return {name: value for name, value in part.items() if name != "evidence"}


def evidence_for(promotion: Promotion, region: str) -> list[dict[str, Any]]:
    """What the other regions have counted, for the one whose turn it is."""
    others = [part for name, part in promotion.parts.items() if name != region]
    return [window for part in others for window in part.get("evidence", [])]
