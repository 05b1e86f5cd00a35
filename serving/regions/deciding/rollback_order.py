"""A rollback over all its regions, as the home agent orders and follows it. Pure.

Regions go back in parallel and need nothing of each other. Where an order names no version, each region
leaves the newest version that is being served (or tried) and goes to what it had before that.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from serving.errors import InvalidInput
from serving.regions.deciding.promotion_decision import is_to_go_back
from serving.regions.deciding.promotion_state import Promotion
from serving.regions.deciding.rollback_state import FAILED, LIVE, QUEUED, TERMINAL, Rollback
from serving.regions.deciding.rollout_state import ABORTED, ROLLED_BACK
from serving.regions.deciding.rollout_state import LIVE as PROMOTED
from serving.regions.registry.epochs import BEFORE_EPOCHS, Epoch, Word, read_epoch
from serving.releases import check_name

RUNNING: Final = "running"
SUPERSEDED: Final = "superseded"
_MAX_REASON: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """An order as an operator writes it."""

    model: str
    version: int | None
    release: str | None
    regions: list[str] | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_asked(raw: Any, known_regions: list[str]) -> Asked:
    """Parse an operator's order; raises InvalidInput that names what does not hold."""
    expected = 'schema_version 1, model, to ({"version": n} | {"release": id} | null), regions ([...] | null), reason'
    if not isinstance(raw, dict) or set(raw) - {"schema_version", "model", "to", "regions", "reason"}:
        raise InvalidInput("rollback is malformed", got=raw, expected=expected)
    if raw.get("schema_version") != 1 or not isinstance(raw.get("model"), str):
        raise InvalidInput("rollback is malformed", got=raw, expected=expected)
    reason = raw.get("reason")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > _MAX_REASON:
        raise InvalidInput("reason is malformed", got=reason, expected=f"a text of at most {_MAX_REASON} characters")
    check_name("model name", raw["model"])
    version, release = _read_target(raw.get("to"))
    return Asked(
        model=raw["model"],
        version=version,
        release=release,
        regions=_read_regions(raw.get("regions"), known_regions),
        reason=reason.strip(),
    )


def _read_target(to: Any) -> tuple[int | None, str | None]:
    if to is None:
        return None, None
    if isinstance(to, dict) and set(to) == {"version"} and type(to["version"]) is int:
        return to["version"], None
    if isinstance(to, dict) and set(to) == {"release"} and isinstance(to["release"], str):
        check_name("release id", to["release"])
        return None, to["release"]
    raise InvalidInput("to is malformed", got=to, expected='{"version": n} | {"release": id} | null')


def _read_regions(regions: Any, known: list[str]) -> list[str] | None:
    if regions is None:
        return None
    if not isinstance(regions, list) or not regions or len(set(map(str, regions))) != len(regions):
        raise InvalidInput("regions is malformed", got=regions, expected="at least one region, none twice, or null")
    for region in regions:
        if region not in known:
            raise InvalidInput("unknown region", got=region, expected=" | ".join(known))
    return list(regions)


@dataclass(frozen=True, kw_only=True, slots=True)
class RollbackOrder:
    """The persisted state of an order."""

    id: str
    asked: dict[str, Any]
    model: str
    reason: str
    release: str | None
    """Where to go, if the order names it."""
    bad: str | None
    """The newest release that was served or tried when the order came: what to get away from."""
    supersedes: list[str]
    """What this order ended: `promotion/<id>` and `rollback/<id>`."""
    regions: list[str]
    ordered_at: float
    actor: str = ""
    """Who ordered it."""
    state: str = RUNNING
    """`running` | `live` | `failed` | `superseded`."""
    failure: str | None = None
    finished_at: float | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each region last said."""
    owed: list[str] = field(default_factory=list)
    """Regions that did not answer in time; they are told as soon as they do."""
    ordered_in: Epoch = BEFORE_EPOCHS

    @property
    def word(self) -> Word:
        """As a promotion's."""
        return self.ordered_in, self.ordered_at

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def open(self) -> bool:
        """Whether anybody has to be asked or told something."""
        return bool(self.owed) or any(not (part := self.parts.get(r)) or not part["settled"] for r in self.regions)


def read_rollback_order(document: dict[str, Any]) -> RollbackOrder:
    """The inverse of `RollbackOrder.to_json`."""
    known = {name: value for name, value in document.items() if name in _KNOWN}
    ordered_in = read_epoch(document["ordered_in"]) if "ordered_in" in document else BEFORE_EPOCHS
    return RollbackOrder(**{**known, "ordered_in": ordered_in})


_KNOWN: Final = frozenset(entry.name for entry in fields(RollbackOrder))


def region_order(order: RollbackOrder) -> dict[str, Any]:
    """What a region's agent is sent."""
    return {
        "schema_version": 1,
        "model": order.model,
        "release": order.release,
        "bad": order.bad,
        "reason": order.reason,
        "supersedes": order.supersedes,
    }


def newest_release(releases: Iterable[tuple[int, str]]) -> str | None:
    """Of (version, release id) pairs, the release with the highest version."""
    return max(releases, default=(0, None))[1]


def note_part(order: RollbackOrder, part: dict[str, Any], now: float) -> RollbackOrder:
    """Keep what a region said, and say how it all stands."""
    region = part["region"]
    owed = [name for name in order.owed if name != region]
    return _judge(replace(order, parts={**order.parts, region: part}, owed=owed), now)


def note_refusal(order: RollbackOrder, region: str, reason: str, now: float, *, owed: bool = False) -> RollbackOrder:
    """A region cannot do it, or does not answer (`owed`: it is told again)."""
    part = {**unasked(order, region), "state": FAILED, "reason": reason, "finished_at": now, "settled": not owed}
    noted = replace(order, parts={**order.parts, region: part})
    others = [name for name in order.owed if name != region]
    return _judge(replace(noted, owed=[*others, region] if owed else others), now)


def without_region(order: RollbackOrder, region: str, now: float) -> RollbackOrder:
    """A region that does not run the model is none of an order for all that run it."""
    parts = {name: part for name, part in order.parts.items() if name != region}
    return _judge(replace(order, regions=[name for name in order.regions if name != region], parts=parts), now)


def _judge(order: RollbackOrder, now: float) -> RollbackOrder:
    parts = [order.parts.get(region) or unasked(order, region) for region in order.regions]
    if order.state == SUPERSEDED or any(part["state"] not in TERMINAL for part in parts):
        return order
    failures = [f"{part['region']}: {part['reason']}" for part in parts if part["state"] == FAILED]
    failure = "; ".join(failures) or (None if parts else "no region runs the model")
    state = FAILED if failure else LIVE
    return replace(order, state=state, failure=failure, finished_at=order.finished_at or now)


def supersede_in(order: RollbackOrder, by: str, now: float, *, told: list[str]) -> RollbackOrder:
    """A newer order takes over in the regions that are `told` of it; in others this one goes on."""
    if set(order.regions) <= set(told):
        return supersede(order, by, now)
    for region in [region for region in order.regions if region in told]:
        part = order.parts.get(region)
        if part is not None and part["state"] in TERMINAL:
            order = note_part(order, {**part, "settled": True}, now)
        else:
            order = note_refusal(order, region, f"rollback {by} was ordered", now)
    return order


def supersede(order: RollbackOrder, by: str, now: float) -> RollbackOrder:
    state = SUPERSEDED if order.state == RUNNING else order.state
    failure = f"rollback {by} was ordered" if order.state == RUNNING else order.failure
    settled = {region: {**part, "settled": True} for region, part in order.parts.items()}
    parts = {region: settled.get(region, {**unasked(order, region), "settled": True}) for region in order.regions}
    return replace(order, state=state, failure=failure, finished_at=order.finished_at or now, owed=[], parts=parts)


def end_promotion(promotion: Promotion, by: str, now: float, *, told: list[str]) -> Promotion:
    """The promotion is over at once. Regions that are `told` hear of the rollback; others where it was under way owe
    its end, and those where it was live stay so, unless it was being taken back: nobody else has asked them to go
    back."""
    parts = {r: _ended_part(part, by, now) if r in told else part for r, part in promotion.parts.items()}
    others = {region: part for region, part in promotion.parts.items() if region not in told}
    stay = [r for r, part in others.items() if part["state"] == PROMOTED and promotion.ending is None]
    owed = [region for region in others if region not in stay and is_to_go_back(promotion, region)]
    return replace(promotion, state=ABORTED, ending=ABORTED, reason=by, finished_at=now, parts=parts, owed=owed)


def forgive(promotion: Promotion, *, told: list[str]) -> Promotion:
    """What regions owed to a finished promotion is replaced by a rollback, in those that are `told` of it."""
    owed = [region for region in promotion.owed if region not in told]
    return replace(promotion, owed=owed, watching=False)


def _ended_part(part: dict[str, Any], by: str, now: float) -> dict[str, Any]:
    if part["state"] in (ROLLED_BACK, ABORTED) or not part["changed"]:
        return part
    state = ROLLED_BACK if part["state"] == LIVE else ABORTED
    return {**part, "state": state, "percent": None, "reason": by, "finished_at": now, "settled": True}


def unasked(order: RollbackOrder, region: str) -> dict[str, Any]:
    """A region's entry before its agent has answered for the first time."""
    nothing = ("version", "previous_version", "started_at", "finished_at", "switched_after_s")
    return {
        "id": order.id,
        "region": region,
        "model": order.model,
        "state": QUEUED,
        "reason": None,
        "release": order.release,
        **dict.fromkeys(nothing),
        "last_bad_answer_after_s": None,
        "changed": True,
        "warm": False,
        "endpoint": None,
        "settled": False,
    }


def show_rollback_order(order: RollbackOrder) -> dict[str, Any]:
    """The answer of GET /v1/rollbacks/{id}; the fields of docs/api.md."""
    return {
        "id": order.id,
        "model": order.model,
        "state": order.state,
        "reason": order.reason,
        "actor": order.actor,
        "failure": order.failure,
        "ordered_at": order.ordered_at,
        "finished_at": order.finished_at,
        "release": order.release,
        "replaces": order.bad,
        "supersedes": order.supersedes,
        "regions": [order.parts.get(region) or unasked(order, region) for region in order.regions],
    }


def show_regional(rollback: Rollback, part: dict[str, Any]) -> dict[str, Any]:
    """The same of a rollback that a region took for itself."""
    return show_rollback_order(_regional(rollback.id, rollback.order, rollback.ordered_at, part))


def _regional(id: str, told: dict[str, Any], ordered_at: float, part: dict[str, Any]) -> RollbackOrder:
    order = RollbackOrder(
        id=id,
        asked=told["asked"],
        model=part["model"],
        reason=told["asked"]["reason"],
        release=part["release"],
        bad=told["bad"],
        supersedes=told["supersedes"],
        regions=[part["region"]],
        ordered_at=ordered_at,
        actor=told["actor"],
    )
    return note_part(order, part, part["finished_at"] or ordered_at)


def read_report(id: str, raw: Any, region_names: list[str]) -> RollbackOrder:
    """What a region's agent tells of a rollback that it took and ended; raises InvalidInput."""
    names = {"region", "asked", "actor", "bad", "supersedes", "ordered_at", "part"}
    parts = {"region", "model", "release", "state", "reason", "finished_at", "settled"}
    if not isinstance(raw, dict) or names - set(raw) or raw["region"] not in region_names:
        raise InvalidInput("rollback report is malformed", got=raw, expected=", ".join(sorted(names)))
    part, asked = raw["part"], raw["asked"]
    sound = isinstance(part, dict) and not parts - set(part) and isinstance(asked, dict) and "reason" in asked
    if not sound or part["region"] != raw["region"] or not part["settled"]:
        raise InvalidInput("rollback report is malformed", got=raw, expected="a part that has ended, with its order")
    return _regional(id, raw, float(raw["ordered_at"]), part)
