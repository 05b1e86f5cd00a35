"""One region's part of a promotion: what it is, and how it is spoken of.

    queued -> replicating -> verified -> starting -> golden -> (shadow) -> canary 5/25/50/100 % -> live (watched)
                                   a failing gate, a crash or an abort -> rolled_back | aborted

Here is the vocabulary: the persisted state, what is observed, and the steps that may be taken.
`rollout_decision.py` chooses the step on the way forward, `rollout_revert.py` on the way back.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from serving.counters import Counters, Snapshot
from serving.regions.deciding.evidence import Scores, Window, has_outcome
from serving.regions.deciding.gates import GateResult
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.registry.registry import LiveModel
from serving.releases import Release

QUEUED: Final = "queued"
REPLICATING: Final = "replicating"
VERIFIED: Final = "verified"
STARTING: Final = "starting"
GOLDEN: Final = "golden"
SHADOW: Final = "shadow"
CANARY: Final = "canary"
LIVE: Final = "live"
ROLLED_BACK: Final = "rolled_back"
ABORTED: Final = "aborted"
STATES: Final = (QUEUED, REPLICATING, VERIFIED, STARTING, GOLDEN, SHADOW, CANARY, LIVE, ROLLED_BACK, ABORTED)
TERMINAL: Final = frozenset({LIVE, ROLLED_BACK, ABORTED})
WATCH: Final = "watch"
"""Name of the step in which a live version is held against what was recorded before; its state is `live`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One state that a rollout went through, with what its gates said."""

    state: str
    percent: int | None
    started_at: float
    finished_at: float | None = None
    requests: int = 0
    synthetic: int = 0
    gates: list[GateResult] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The persisted state machine. Only transitions in this file change it."""

    id: str
    region: str
    release: Release
    version: int
    policy: PromotionPolicy
    state: str = QUEUED
    percent: int | None = None
    plan: list[int] = field(default_factory=list)
    """Percentages of the canary, decided when it begins."""
    baseline: Snapshot | None = None
    """The gateway's counters when the present step's weights were in force; None until they are."""
    steps: list[Step] = field(default_factory=list)
    actor: str = ""
    """Who ordered the promotion."""
    regions: int = 1
    """How many the promotion has: evidence of all of them shares one budget."""
    earlier: list[Window] = field(default_factory=list)
    """What other regions counted before this one began."""
    evidence: list[Window] = field(default_factory=list)
    """What this region counted in the steps that are finished."""
    scores: Scores = field(default_factory=Scores)
    """Of the completions that were mirrored in the present step."""
    opening: Snapshot | None = None
    """The gateway's counters when this rollout left the queue."""
    recorded: Counters | None = None
    """What the live version did from then until it got no more traffic."""
    watch_until: float | None = None
    paused_at: float | None = None
    """Since when it is paused: that time counts neither as baking nor against the step."""
    paused: bool = False
    """An operator wants the present weights to stay; a failing gate takes them back all the same."""
    promoted_by: str | None = None
    """Who decided that no more evidence is waited for; a failing gate still counts."""
    waiting_for: str | None = None
    """What is missing, when its time is over and the policy says to hold."""
    previous: str | None = None
    """Release that was live when this rollout left the queue."""
    previous_version: int | None = None
    held: bool = False
    """Whether it waits, with its server ready, for the regions before it."""
    changed: bool = True
    """False when the release was live here already and nothing had to be done."""
    abort: str | None = None
    """Why somebody wants this rollout stopped."""
    ending: str | None = None
    """`rolled_back` | `aborted` from the moment at which the weights must go back."""
    reverting: bool = False
    """Whether a rollout that was live is taken back."""
    revert_failure: str | None = None
    reason: str | None = None
    weights_at: float | None = None
    """When the final weights (forward or back) were in force; draining counts from here."""
    settled: bool = False
    """Nothing is left to do: the server that lost is stopped."""
    started_at: float = 0.0
    finished_at: float | None = None

    @property
    def candidate_percent(self) -> int | None:
        """Weight that the route gives to the candidate now, None when it is not to be in the route."""
        if self.ending is not None or self.state not in (SHADOW, CANARY):
            return None
        return 0 if self.state == SHADOW else self.percent

    @property
    def replays_count(self) -> bool:
        """Whether replayed requests are evidence: where nothing is live, there are no users to ask."""
        return self.policy.synthetic_evidence or self.previous is None

    @property
    def watching(self) -> bool:
        return self.state == LIVE and self.watch_until is not None and not self.settled and self.ending is None

    @property
    def windows(self) -> list[Window]:
        """Of the whole promotion, as far as this region knows them."""
        return [*self.earlier, *self.evidence]

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in _PLAIN}
        return {
            **document,
            "release": asdict(self.release),
            "policy": self.policy.to_json(),
            "steps": [asdict(step) for step in self.steps],
            "scores": asdict(self.scores),
            "earlier": [window.to_json() for window in self.earlier],
            "evidence": [window.to_json() for window in self.evidence],
            "baseline": None if self.baseline is None else self.baseline.to_json(),
            "opening": None if self.opening is None else self.opening.to_json(),
            "recorded": None if self.recorded is None else self.recorded.to_json(),
        }


_STRUCTURED: Final = (
    *("release", "policy", "steps", "scores", "earlier", "evidence", "baseline", "opening", "recorded"),
)
_PLAIN: Final = tuple(entry.name for entry in fields(Rollout) if entry.name not in _STRUCTURED)


class Server(StrEnum):
    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What the region looks like when `decide` is asked."""

    candidate: Server
    candidate_note: str = ""
    """Why the candidate's server failed."""
    previous: Server = Server.ABSENT
    previous_note: str = ""
    previous_degraded: bool = False
    """Whether it crashed too often to be started again."""
    live: LiveModel | None = None
    live_version: int | None = None
    before_previous: str | None = None
    """What was live before `previous` was: the version before, should `previous` be live again."""
    superseded: bool = False
    """Whether another promotion of the model waits for this one to be settled."""
    served_elsewhere: bool = False
    """Whether another region serves the model live."""
    stats: Snapshot | None = None
    """None when the gateway did not answer."""
    gateway_silent_s: float = 0.0
    """How long it has not."""
    weights_refused_s: float = 0.0
    """How long it has not taken the step's weights, since they were first offered in vain; an agent that could offer
    none, because its registry was away, blames nobody."""
    recent: Snapshot | None = None
    """What it counted lately, before this rollout began."""


class Effect(StrEnum):
    """What a runner does to the world; each may be repeated."""

    REPLICATE = "replicate"
    LAUNCH = "launch the candidate"
    CHECK_GOLDEN = "check the golden set"
    SHIFT_WEIGHTS = "shift weights"
    REPLAY = "replay golden inputs"
    LAUNCH_PREVIOUS = "launch the previous release"
    RESTORE_WEIGHTS = "put the old weights back"
    STOP_CANDIDATE = "stop the candidate"
    STOP_PREVIOUS = "stop the previous release"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True, slots=True)
class Do:
    effect: Effect
    requests: int = 0
    """How many to replay so that the candidate gets enough of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Save:
    rollout: Rollout
    message: str
    live: LiveModel | None = None
    """What is live from this moment on, committed together with the rollout."""


Action = Do | Save


def same_phase(before: Rollout, now: Rollout) -> bool:
    """Whether an effect that was decided on `before` still has a say.

    While a server is being stopped or weights are being moved, somebody may ask for the rollout to be taken
    back; the outcome of what was begun earlier must then not count as the outcome of what comes now.
    """
    return _phase(before) == _phase(now)


def _phase(rollout: Rollout) -> tuple[object, ...]:
    return rollout.state, rollout.percent, rollout.ending, rollout.reverting, len(rollout.steps)


def drained(rollout: Rollout, release: str, stats: Snapshot | None, now: float) -> bool:
    """A backend that the gateway no longer reports may still be answering: wait out the bound."""
    if now - (rollout.weights_at or now) >= rollout.policy.drain_s:
        return True
    counters = None if stats is None else stats.backends.get(backend_id(release, rollout.region))
    return counters is not None and counters.in_flight == 0


# Steps


def pause(rollout: Rollout, now: float) -> Rollout:
    return replace(rollout, paused=True, paused_at=now)


def resume(rollout: Rollout, now: float) -> Rollout:
    """Go on, with the present step's clock where it stood."""
    return _shifted(replace(rollout, paused=False, paused_at=None), now - (rollout.paused_at or now))


def release_hold(rollout: Rollout, now: float) -> Rollout:
    """Its turn has come: the time in which its server may start begins now."""
    started_at = rollout.steps[-1].started_at if rollout.steps else now
    return _shifted(replace(rollout, held=False), now - started_at)


def _shifted(rollout: Rollout, seconds: float) -> Rollout:
    """The open step begins so much later."""
    if not rollout.steps or rollout.steps[-1].finished_at is not None:
        return rollout
    last = replace(rollout.steps[-1], started_at=rollout.steps[-1].started_at + max(0.0, seconds))
    return replace(rollout, steps=[*rollout.steps[:-1], last])


def enter(rollout: Rollout, state: str, now: float, percent: int | None = None) -> Rollout:
    """Close the open step and begin the next."""
    closed = close(rollout, [], now)
    step = Step(state=state, percent=percent, started_at=now)
    return replace(closed, state=state, percent=percent, steps=[*closed.steps, step])


def close(rollout: Rollout, gates: list[GateResult], now: float, window: Window | None = None) -> Rollout:
    """Finish the last step unless it is finished; what it counted becomes evidence."""
    if not rollout.steps or rollout.steps[-1].finished_at is not None:
        return rollout
    last = replace(rollout.steps[-1], finished_at=now, gates=gates)
    evidence = rollout.evidence
    if window is not None:
        replayed = window.candidate.synthetic.finished
        last = replace(last, requests=has_outcome(window.candidate) + replayed, synthetic=replayed)
        evidence = [*evidence, window.ended]
    return replace(rollout, steps=[*rollout.steps[:-1], last], evidence=evidence)


def backend_id(release: str, region: str) -> str:
    """How the gateway's routes and counters name a release's server in a region."""
    return f"{release}@{region}"
