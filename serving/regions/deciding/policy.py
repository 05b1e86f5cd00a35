"""What a promotion may do and what stops it. Ordered with the release, interpreted by the agents.

This is the one home of a promotion's knobs; docs/api.md has them as a table, made from this file.
"""

import re
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Final, get_args

from serving.errors import InvalidInput

ROLLBACK_SCOPES: Final = ("region", "all")
FOLLOWER_LOST: Final = ("continue", "rollback")
HOLD: Final = "hold"
GO: Final = "go"
BACK: Final = "back"
WORDS: Final = (HOLD, GO, BACK)
ERRORS: Final = "errors"
REFUSALS: Final = "refusals"
LATENCY: Final = "latency"
AGREEMENT: Final = "agreement"
ACCURACY: Final = "accuracy"
SCORE: Final = "score"
EVIDENCE_GATES: Final = (ERRORS, REFUSALS, LATENCY, AGREEMENT, ACCURACY, SCORE)
"""Gates that are judged while users are served."""
_SCORER: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy:
    """Steps, gates and what a failing gate takes back. Flyte carries it as a dataclass input."""

    steps_percent: list[int] = field(default_factory=lambda: [5, 25, 50, 100])
    """Share of real traffic per canary step, %, strictly rising, the last one 100."""
    bake_s: float = 30.0
    """Seconds that a step lasts at least: some faults need time to show, however many requests there are."""
    min_requests: int = 50
    """Requests with an outcome that the candidate must have had in a step before the next."""
    step_timeout_s: float = 600.0
    """Seconds after which a step that lacks requests, or the verdict that is due, counts as inconclusive."""
    on_inconclusive: str = "hold"
    """What happens then: `hold` the weights until evidence or a person decides, `go` on, or `back`."""
    required_gates: list[str] = field(default_factory=lambda: [ERRORS, REFUSALS, LATENCY])
    """Gates that must pass before the last of the live version's traffic is taken; the others must not fail.
    Add `accuracy` where users send feedback, `agreement` where answers are compared."""
    false_rollbacks: float = 0.01
    """Most promotions of versions that are no worse that may be rolled back by chance, 0 to 1, over the whole
    promotion: all gates, looks, steps and regions together."""
    false_passes: float = 0.05
    """The same for each gate that passes although the version is worse by more than the gate's margin, 0 to 1."""
    error_margin: float = 0.01
    """Errors that the candidate may have beyond the live version's, share of requests (0.01: one percentage point)."""
    refusal_margin: float = 0.01
    """The same for requests that it blames on their users (400, 413, 422)."""
    latency_margin: float = 0.25
    """How much slower its answers may be than the live version's (0.25: a quarter)."""
    max_accuracy_drop: float = 0.02
    """Accuracy that it may lose, 0 to 1: golden set against the FP32 reference, feedback against the live version."""
    min_agreement: float = 0.90
    """Share of compared requests on which candidate and live version answer alike, 0 to 1."""
    min_score: float = 0.50
    """Mean score of mirrored completions, 0 to 1."""
    max_error_rate: float = 0.01
    """Share of its requests that may fail where no live version is there to compare with, 0 to 1."""
    max_p95_ms: float = 250.0
    """Its p95 latency, ms, where no live version is there to compare with."""
    error_budget: float = 0.05
    """Share of the live version's requests that may have failed for a promotion to begin, 0 to 1: a region in trouble
    is not changed. A live version beyond it, or one that nobody asks, is no control: there it is the candidate's bound.
    1 switches both off, as the promotion of a remedy must."""
    synthetic_after_s: float = -1.0
    """Seconds without enough users after which the agent replays golden inputs through its gateway; < 0: never."""
    synthetic_evidence: bool = False
    """Whether replayed requests count as users' requests do. Only users are evidence of quality: a policy that takes
    replays for it says so, and its report too."""
    shadow_s: float = 0.0
    """Seconds for which the candidate answers copies of users' requests before it answers any user; 0: no shadow."""
    mirror_share: float = 1.0
    """Share of the candidate's answers that the live version repeats to compare them, 0 to 1."""
    shadow_share: float = 1.0
    """Share of the live version's answers that the candidate repeats in its shadow, 0 to 1."""
    completions_share: float = 0.0
    """Share of completions that the other version repeats, 0 to 1; each costs as much as an answer."""
    completion_scorer: str = ""
    """Who scores repeated completions: a `package.module:function` of the topology's `scorers`; empty: greedy
    agreement."""
    watch_s: float = 300.0
    """Seconds for which a version that went live is held against what was recorded of the one before, and goes back by
    itself; 0: not at all."""
    watch_share: float = 0.0
    """Share of its answers that the version before repeats meanwhile, 0 to 1, so that agreement is judged as well."""
    drain_s: float = 10.0
    """Seconds that a replaced model server may finish what it has begun."""
    standby_s: float = 600.0
    """Seconds for which a replaced model server stays ready beside the live one, outside the route, so that taking back
    is instant; 0: it is stopped once it has drained and the watch is over."""
    start_timeout_s: float = 180.0
    """Seconds that a model server may take until it is ready."""
    prepare_ahead: int = 0
    """How many of the regions that come next already copy the bundle and start their model server, beside the live
    one, while a region is at work: servers that take minutes start side by side, for their memory's price."""
    rollback_scope: str = "all"
    """`region`: the failing region alone; `all`: every region that this promotion had changed."""
    on_follower_lost: str = "continue"
    """What the agents do when nobody follows the promotion for `follower_lease_s`: `continue` | `rollback`."""
    follower_lease_s: float = 60.0
    """Seconds."""

    def __post_init__(self) -> None:
        steps = self.steps_percent
        if not steps or any(b <= a for a, b in pairwise(steps)) or steps[0] <= 0 or steps[-1] != 100:
            raise InvalidInput(
                "steps_percent is not usable", got=steps, expected="strictly rising percentages that end with 100"
            )
        for name in _SHARES:
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("false_rollbacks", "false_passes"):
            _check(name, getattr(self, name), 0 < getattr(self, name) < 1, "more than 0, less than 1")
        for name in ("max_p95_ms", "step_timeout_s", "start_timeout_s", "follower_lease_s", "latency_margin"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "> 0")
        for name in ("bake_s", "shadow_s", "watch_s", "drain_s", "standby_s", "prepare_ahead"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        for name in ("error_margin", "refusal_margin"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "> 0: nothing is ever certain to be equal")
        _check("min_requests", self.min_requests, self.min_requests > 0, "> 0")
        _check_word("rollback_scope", self.rollback_scope, ROLLBACK_SCOPES)
        _check_word("on_follower_lost", self.on_follower_lost, FOLLOWER_LOST)
        _check_word("on_inconclusive", self.on_inconclusive, WORDS)
        for gate in self.required_gates:
            _check_word("required_gates", gate, EVIDENCE_GATES)
        if self.completion_scorer and not _SCORER.fullmatch(self.completion_scorer):
            raise InvalidInput(
                "completion_scorer is malformed", got=self.completion_scorer, expected="package.module:function"
            )
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        for holds, what, got, expected in (
            (
                self.bake_s <= self.step_timeout_s,
                "a step would be over before it has baked",
                f"bake_s {self.bake_s:g}, step_timeout_s {self.step_timeout_s:g}",
                "bake_s <= step_timeout_s",
            ),
            (
                not self.synthetic_evidence or self.synthetic_after_s >= 0,
                "replays would count, but none are sent",
                f"synthetic_evidence true, synthetic_after_s {self.synthetic_after_s:g}",
                "synthetic_after_s >= 0",
            ),
            (
                self.synthetic_after_s <= self.step_timeout_s,
                "replays would begin after the step is over",
                f"synthetic_after_s {self.synthetic_after_s:g}, step_timeout_s {self.step_timeout_s:g}",
                "synthetic_after_s <= step_timeout_s",
            ),
            (
                self.shadow_s == 0 or self.shadow_share > 0,
                "a shadow would see no request",
                f"shadow_s {self.shadow_s:g}, shadow_share 0",
                "shadow_share > 0",
            ),
            (
                not self.completion_scorer or self.completions_share > 0,
                "a scorer is named, but no completion is repeated",
                f"completion_scorer {self.completion_scorer}, completions_share 0",
                "completions_share > 0",
            ),
            (
                SCORE not in self.required_gates or self.completions_share > 0,
                "the gate score is required, but no completion is repeated",
                f"required_gates {self.required_gates}, completions_share 0",
                "completions_share > 0",
            ),
            (
                AGREEMENT not in self.required_gates or self.mirror_share > 0,
                "the gate agreement is required, but no answer is compared",
                f"required_gates {self.required_gates}, mirror_share 0",
                "mirror_share > 0",
            ),
        ):
            if not holds:
                raise InvalidInput(f"policy contradicts itself: {what}", got=got, expected=expected)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> "PromotionPolicy":
        """An order's policy; a field that is not known is refused."""
        known = {f.name for f in fields(cls)}
        if not isinstance(raw, dict) or set(raw) - known:
            raise InvalidInput("policy is malformed", got=raw, expected=f"an object of {sorted(known)}")
        for entry in fields(cls):
            if entry.name in raw and not _fits(raw[entry.name], entry.type):
                got = repr(raw[entry.name])[:100]
                raise InvalidInput(f"{entry.name} of the policy is malformed", got=got, expected=_described(entry.type))
        return cls._make(raw)

    @classmethod
    def _make(cls, raw: dict[str, Any]) -> "PromotionPolicy":
        try:
            return cls(**raw)
        except TypeError as broken:
            raise InvalidInput("policy is malformed", got=raw, expected=str(broken)) from broken

    @classmethod
    def from_peer(cls, raw: Any) -> "PromotionPolicy":
        """The policy as another agent, or an earlier one, wrote it: what this one does not know is left out.

        It was checked when it was ordered, and must be readable for ever: what it could not know contradicts nothing.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(raw, dict):
            return cls.from_json(raw)
        written = {name: value for name, value in raw.items() if name in known}
        if "bake_s" not in written:
            # Of before steps baked; replays might begin after a step's end then.
            timeout_s = written.get("step_timeout_s", cls.step_timeout_s)
            written["bake_s"] = min(cls.bake_s, timeout_s)
            written["synthetic_after_s"] = min(written.get("synthetic_after_s", cls.synthetic_after_s), timeout_s)
        return cls._make(written)


_LARGEST: Final = 1e12
"""No number of a policy is larger; JSON has larger ones, and 1e999 for infinity."""
_KINDS: Final[dict[Any, str]] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_LISTS: Final[dict[Any, str]] = {int: "a list of whole numbers", str: "a list of texts"}


def _described(kind: Any) -> str:
    items = get_args(kind)
    return _LISTS[items[0]] if items else _KINDS[kind]


def _fits(value: object, kind: Any) -> bool:
    """Whether a JSON value is what a field takes: a half per cent of the traffic no gateway can give."""
    if kind in (int, float):
        numbers = (int, float) if kind is float else int
        return isinstance(value, numbers) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST
    # flytekit writes `typing.List[int]` into the fields of the dataclass that it carries: not equal to `list[int]`.
    if items := get_args(kind):
        return isinstance(value, list) and all(_fits(item, items[0]) for item in value)
    return isinstance(value, kind)


_SHARES: Final = (
    "max_error_rate",
    "min_agreement",
    "min_score",
    "max_accuracy_drop",
    "error_margin",
    "refusal_margin",
    "error_budget",
    "mirror_share",
    "shadow_share",
    "completions_share",
    "watch_share",
)


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InvalidInput(f"{name} is out of range", got=value, expected=expected)


def _check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise InvalidInput(f"{name} is not a word known here", got=value, expected=" | ".join(words))
