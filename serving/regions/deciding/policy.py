"""What a promotion may do and what stops it. Ordered with the release, interpreted by the agents."""

from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Final

from serving.errors import InvalidInput

ROLLBACK_SCOPES: Final = ("region", "all")
FOLLOWER_LOST: Final = ("continue", "rollback")


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy:
    """Steps, gates and what a failing gate takes back. Flyte carries it as a dataclass input."""

    steps_percent: list[int] = field(default_factory=lambda: [5, 25, 50, 100])
    """Share of real traffic per canary step, %, strictly rising, the last one 100."""
    min_requests: int = 50
    """Requests that the candidate must have answered in a step before its gates are judged."""
    max_error_rate: float = 0.01
    """Share of the candidate's requests in a step that may fail, 0 to 1."""
    max_p95_ratio: float = 2.0
    """Candidate's p95 latency over the live version's in the same window."""
    p95_floor_ms: float = 50.0
    """Below this p95 the ratio is not applied: it would compare noise."""
    max_p95_ms: float = 250.0
    """Absolute bound on the candidate's p95; the only latency gate of a first release."""
    min_agreement: float = 0.90
    """Share of mirrored requests on which candidate and live version answer alike, 0 to 1."""
    max_accuracy_drop: float = 0.02
    """Allowed loss of accuracy: golden set against the FP32 reference, feedback against the live version."""
    min_labelled: int = 30
    """Labelled requests (feedback) that the accuracy gate needs; with fewer it reports `not judged`."""
    step_timeout_s: float = 120.0
    """A step that has not met `min_requests` by then fails."""
    synthetic_after_s: float = 5.0
    """After this long without enough real traffic the agent replays golden inputs through its gateway; < 0: never."""
    drain_s: float = 10.0
    """How long a replaced model server may finish what it has begun."""
    standby_s: float = 600.0
    """How long a replaced model server stays ready beside the live one, outside the route, so that taking back
    is instant; 0: it is stopped once it has drained."""
    start_timeout_s: float = 180.0
    """How long a model server may take until it is ready."""
    prepare_ahead: int = 0
    """How many of the regions that come next already copy the bundle and start their model server, beside the live
    one, while a region is at work: servers that take minutes start side by side, for their memory's price."""
    rollback_scope: str = "all"
    """`region`: the failing region alone; `all`: every region that this promotion had changed."""
    on_follower_lost: str = "continue"
    """What the agents do when nobody follows the promotion for `follower_lease_s`: `continue` | `rollback`."""
    follower_lease_s: float = 60.0

    def __post_init__(self) -> None:
        steps = self.steps_percent
        if not steps or any(b <= a for a, b in pairwise(steps)) or steps[0] <= 0 or steps[-1] != 100:
            raise InvalidInput(
                "steps_percent is not usable", got=steps, expected="strictly rising percentages that end with 100"
            )
        for name in ("max_error_rate", "min_agreement", "max_accuracy_drop"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("max_p95_ratio", "max_p95_ms", "step_timeout_s", "start_timeout_s", "follower_lease_s"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "> 0")
        for name in ("p95_floor_ms", "drain_s", "standby_s", "min_labelled", "prepare_ahead"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        _check("min_requests", self.min_requests, self.min_requests > 0, "> 0")
        _check(
            "rollback_scope", self.rollback_scope, self.rollback_scope in ROLLBACK_SCOPES, " | ".join(ROLLBACK_SCOPES)
        )
        _check(
            "on_follower_lost", self.on_follower_lost, self.on_follower_lost in FOLLOWER_LOST, " | ".join(FOLLOWER_LOST)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> "PromotionPolicy":
        known = {f.name for f in fields(cls)}
        if not isinstance(raw, dict) or set(raw) - known:
            raise InvalidInput("policy is malformed", got=raw, expected=f"an object of {sorted(known)}")
        try:
            return cls(**raw)
        except TypeError as broken:
            raise InvalidInput("policy is malformed", got=raw, expected=str(broken)) from broken


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InvalidInput(f"{name} is out of range", got=value, expected=expected)
