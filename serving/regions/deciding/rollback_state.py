"""One region's part of a rollback: what it is and, purely, what comes next.

    queued -> starting -> switching -> live
             |-> failed

The version to go back to was live here before, so it is tried no more: when its server is warm the weights
move at once, otherwise it is started beside the bad one first. What the rollback replaces keeps serving
until then, is drained after that, and is stopped last.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from serving.counters import Snapshot
from serving.errors import Conflict, InvalidInput, NotFound
from serving.regions.deciding.rollout_state import Server, backend_id
from serving.regions.registry.registry import LiveModel
from serving.releases import check_name

QUEUED: Final = "queued"
STARTING: Final = "starting"
SWITCHING: Final = "switching"
LIVE: Final = "live"
FAILED: Final = "failed"
TERMINAL: Final = frozenset({LIVE, FAILED})
_MAX_REASON: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """The persisted state machine."""

    id: str
    region: str
    model: str
    order: dict[str, Any]
    """As the home agent sent it."""
    reason: str
    """Why the operator ordered it."""
    release: str | None
    """What is to be live; None when a first release is taken back and nothing was there before."""
    version: int | None = None
    replaced: list[str] = field(default_factory=list)
    """Releases whose servers leave: the live one and those of rollouts that this rollback ended."""
    replaced_version: int | None = None
    """Of the release that was live."""
    changed: bool = True
    """False when the release was live here already."""
    drain_s: float = 10.0
    start_timeout_s: float = 180.0
    state: str = QUEUED
    failure: str | None = None
    warm: bool = False
    """Whether the server was ready when the order came."""
    ordered_at: float = 0.0
    starting_at: float | None = None
    weights_at: float | None = None
    """When the gateway had the final weights."""
    last_bad_answer_at: float | None = None
    """When a replaced server was last seen to have finished a request; None if it finished none since the order."""
    finished_at: float | None = None
    settled: bool = False
    reported: bool = False
    """Whether the home region knows of one that was ordered here."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_rollback(document: dict[str, Any]) -> Rollback:
    """The inverse of `Rollback.to_json`."""
    return Rollback(**{name: value for name, value in document.items() if name in _KNOWN})


_KNOWN: Final = frozenset(entry.name for entry in fields(Rollback))


def show_rollback(rollback: Rollback, *, endpoint: str) -> dict[str, Any]:
    """The region's entry in a rollback; the fields of docs/api.md."""

    def after(moment: float | None) -> float | None:
        return None if moment is None else max(0.0, moment - rollback.ordered_at)

    return {
        "id": rollback.id,
        "region": rollback.region,
        "model": rollback.model,
        "state": rollback.state,
        "reason": rollback.failure,
        "release": rollback.release,
        "version": rollback.version,
        "previous_version": rollback.replaced_version,
        "changed": rollback.changed,
        "warm": rollback.warm,
        "started_at": rollback.ordered_at,
        "finished_at": rollback.finished_at,
        "switched_after_s": after(rollback.weights_at),
        "last_bad_answer_after_s": after(rollback.last_bad_answer_at),
        "endpoint": endpoint,
        "settled": rollback.settled,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionOrder:
    """What the home agent asks of a region."""

    model: str
    release: str | None
    """Where to go, or None: to what was live before the bad release."""
    bad: str | None
    """The release to get away from; a region that serves another one stays where it is unless `release` says more."""
    reason: str
    supersedes: tuple[str, ...]
    """Promotions and rollbacks that this order ends, wherever their calls are on the way."""


def read_region_order(raw: Any) -> RegionOrder:
    """`{"schema_version": 1, "model", "release", "bad", "reason", "supersedes"}`; raises InvalidInput."""
    names = {"schema_version", "model", "release", "bad", "reason", "supersedes"}
    texts = ("model", "reason")
    malformed = not isinstance(raw, dict) or names - set(raw) or raw["schema_version"] != 1
    if malformed or not all(isinstance(raw[name], str) for name in texts) or not isinstance(raw["supersedes"], list):
        raise InvalidInput("rollback order is malformed", got=raw, expected=", ".join(sorted(names)))
    for name in ("release", "bad"):
        if raw[name] is not None:
            check_name(name, raw[name])
    return RegionOrder(
        model=raw["model"],
        release=raw["release"],
        bad=raw["bad"],
        reason=raw["reason"][:_MAX_REASON],
        supersedes=tuple(map(str, raw["supersedes"])),
    )


def find_target(order: RegionOrder, live: LiveModel | None, *, been_live: list[str], ends_rollouts: bool) -> str | None:
    """The release to go to in this region.

    Raises NotFound when the region never had the model, Conflict when the release was never live here or
    there is no version before.
    """
    if live is None and not ends_rollouts:
        raise NotFound("region does not run the model", got=order.model, expected="one that it runs")
    if order.release is not None:
        if order.release not in been_live:
            expected = f"one of {', '.join(been_live[-10:])}" if been_live else "none was: promote it"
            raise Conflict("release was never live in this region", got=order.release, expected=expected)
        return order.release
    present = None if live is None else live.release_id
    if present is not None and present != order.bad:
        return present
    before = None if live is None else live.previous_release_id
    if before is None and (present is not None or not ends_rollouts):
        raise Conflict(
            "there is no version before the live one in this region",
            got=present or "nothing is live",
            expected="a release that was live here: name it, or promote one",
        )
    return before


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What the region looks like when `decide_rollback` is asked."""

    target: Server = Server.ABSENT
    note: str = ""
    degraded: bool = False
    before_target: str | None = None
    """What was live before the target was first promoted here."""
    stats: Snapshot | None = None


class Act(StrEnum):
    """What a runner does to the world; each may be repeated."""

    LAUNCH = "launch the server of the version to go back to"
    SHIFT_WEIGHTS = "shift weights"
    STOP_REPLACED = "stop what was replaced"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """A new state to commit, and what is live from then on."""

    rollback: Rollback
    message: str
    live: LiveModel | None = None


def decide_rollback(rollback: Rollback, seen: Seen, now: float) -> Act | Keep:
    """The next step of a rollback that is not settled."""
    if rollback.state in (QUEUED, STARTING):
        return _decide_start(rollback, seen, now)
    if rollback.weights_at is None:
        return Act.SHIFT_WEIGHTS
    return Act.STOP_REPLACED if _drained(rollback, seen.stats, now) else Act.WAIT


def _decide_start(rollback: Rollback, seen: Seen, now: float) -> Act | Keep:
    if rollback.release is None or not rollback.changed or seen.target is Server.READY:
        return _switch(rollback, seen)
    if rollback.starting_at is None:
        return Keep(rollback=replace(rollback, state=STARTING, starting_at=now), message="starting the server")
    late = now - rollback.starting_at > rollback.start_timeout_s
    if seen.degraded or late:
        why = seen.note or f"not ready within {rollback.start_timeout_s:g} s"
        failure = f"{rollback.region} stays as it is: the server of {rollback.release} did not start: {why}"
        return Keep(rollback=replace(rollback, state=FAILED, failure=failure), message=failure)
    return Act.LAUNCH if seen.target in (Server.ABSENT, Server.FAILED) else Act.WAIT


def _switch(rollback: Rollback, seen: Seen) -> Keep:
    live = LiveModel(
        model=rollback.model,
        release_id=rollback.release,
        previous_release_id=seen.before_target,
        reason=f"rollback {rollback.id}: {rollback.reason}" if rollback.release is None else None,
    )
    switching = replace(rollback, state=SWITCHING, warm=rollback.warm or rollback.starting_at is None)
    return Keep(rollback=switching, message=f"{rollback.release or 'nothing'} is live", live=live)


def weights_in_force(rollback: Rollback, now: float) -> Rollback:
    """Users get the final weights from here on."""
    state = FAILED if rollback.state == FAILED else LIVE
    return replace(rollback, state=state, weights_at=now, finished_at=now)


def _drained(rollback: Rollback, stats: Snapshot | None, now: float) -> bool:
    if now - (rollback.weights_at or now) >= rollback.drain_s:
        return True
    known_backends = {} if stats is None else stats.backends
    counters = [known_backends.get(name) for name in bad_backends(rollback)]
    return all(known is not None and known.in_flight == 0 for known in counters)


def bad_backends(rollback: Rollback) -> list[str]:
    """How the gateway names the servers that leave."""
    return [backend_id(release, rollback.region) for release in rollback.replaced]


def overrule_rollback(rollback: Rollback, by: str, now: float) -> Rollback:
    """A newer rollback of the model takes over."""
    if rollback.state in TERMINAL:
        return replace(rollback, settled=True)
    failure = f"rollback {by} was ordered before this one had ended"
    return replace(rollback, state=FAILED, failure=failure, finished_at=now, settled=True)
