"""What a candidate must show before it gets more traffic. Pure: windows and policy in, results out.

Error and latency gates compare what was measured with the bound itself. Shares of small samples
(agreement, accuracy on feedback) fail only when the shortfall is no accident: when a candidate that
just met the bound would do this badly in fewer than one of 20 samples of this size. Without that
rule a model that is as good as the live one is refused now and then, the more often the fewer requests.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.windows import Counters

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_JUDGED: Final = "not judged"
_CHANCE: Final = 0.05
_MIN_LIVE_ANSWERS: Final = 20
"""With fewer answers the live version's p95 is a single slow request."""
_AT_MOST: Final = frozenset({"errors", "latency"})
_PERPLEXITY: Final = "perplexity"


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    gate: str
    """errors | latency | agreement | accuracy | golden | golden agreement | tokenizer | chat template | server |
    requests."""
    measured: float | None
    allowed: float | None
    unit: str
    status: str
    """`passed` | `failed` | `not judged`."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Why it failed, for the reason of a rollback."""
        if self.measured is None:
            return f"gate {self.gate} failed: {self.note}"
        bound = "at most" if self.gate in _AT_MOST or self.unit == _PERPLEXITY else "at least"
        note = f" ({self.note})" if self.note else ""
        figures = f"measured {self.measured:.4g}, allowed {bound} {self.allowed:.4g} {self.unit}"
        return f"gate {self.gate} failed: {figures}{note}"


def judge_step(
    candidate: Counters, live: Counters | None, live_since_boot: Counters | None, policy: PromotionPolicy
) -> list[GateResult]:
    """All gates of one canary step.

    `candidate` and `live` are windows of the step, `live_since_boot` the live version's counters since
    the gateway's boot; both are None when this region serves no live version.
    """
    return [
        judge_errors(candidate, policy),
        judge_latency(candidate, live, policy),
        judge_agreement(candidate, live, policy),
        judge_accuracy(candidate, live, live_since_boot, policy),
    ]


def failures(results: Sequence[GateResult]) -> list[GateResult]:
    return [result for result in results if result.status == FAILED]


def errors_cannot_pass(candidate: Counters, policy: PromotionPolicy) -> bool:
    """Whether the step has more errors already than all of its `min_requests` may have."""
    allowed = policy.max_error_rate * max(policy.min_requests, candidate.finished)
    return candidate.errors > allowed


def judge_errors(candidate: Counters, policy: PromotionPolicy) -> GateResult:
    """Share of the candidate's requests that failed."""
    share = candidate.errors / candidate.finished if candidate.finished else 0.0
    too_many = share > policy.max_error_rate or errors_cannot_pass(candidate, policy)
    return GateResult(
        gate="errors",
        measured=share,
        allowed=policy.max_error_rate,
        unit="share",
        status=FAILED if too_many else PASSED,
        note=f"{candidate.errors} of {candidate.finished} requests",
    )


def judge_latency(candidate: Counters, live: Counters | None, policy: PromotionPolicy) -> GateResult:
    """p95 against the absolute bound and, where the live version answered too, against its p95."""
    p95 = candidate.p95_ms()
    if p95 is None:
        return _not_judged("latency", policy.max_p95_ms, "ms p95", "no answer was timed")
    allowed, note = policy.max_p95_ms, "absolute bound"
    live_p95 = live.p95_ms() if live is not None and sum(live.counts) >= _MIN_LIVE_ANSWERS else None
    if live_p95 is not None and math.isfinite(live_p95):
        relative = max(policy.p95_floor_ms, policy.max_p95_ratio * live_p95)
        if relative < allowed:
            allowed, note = relative, f"live version's p95 {live_p95:.4g} ms x {policy.max_p95_ratio:g}"
            if relative == policy.p95_floor_ms:
                note = f"p95 floor; live version's p95 {live_p95:.4g} ms"
    if math.isinf(p95):
        # JSON knows no infinity: the last bound, which it exceeds.
        last = candidate.bounds_ms[-1] if candidate.bounds_ms else 0.0
        return GateResult(
            gate="latency", measured=last, allowed=allowed, unit="ms p95", status=FAILED, note=f"more than; {note}"
        )
    status = PASSED if p95 <= allowed else FAILED
    return GateResult(gate="latency", measured=p95, allowed=allowed, unit="ms p95", status=status, note=note)


def judge_agreement(candidate: Counters, live: Counters | None, policy: PromotionPolicy) -> GateResult:
    """Share of mirrored requests that candidate and live version answered alike."""
    if live is None:
        return _not_judged("agreement", policy.min_agreement, "share", "no live version to compare with")
    if candidate.compared == 0:
        return _not_judged("agreement", policy.min_agreement, "share", "no request was compared")
    return _judge_share("agreement", candidate.agreed, candidate.compared, policy.min_agreement, "compared")


def judge_accuracy(
    candidate: Counters, live: Counters | None, live_since_boot: Counters | None, policy: PromotionPolicy
) -> GateResult:
    """Accuracy on feedback against the live version's in the same window, or since boot if that has too little."""
    if candidate.labelled < max(policy.min_labelled, 1):
        note = f"{candidate.labelled} of {policy.min_labelled} labelled requests"
        return _not_judged("accuracy", None, "share", note)
    enough = [c for c in (live, live_since_boot) if c is not None and c.labelled >= max(policy.min_labelled, 1)]
    if not enough:
        return _not_judged("accuracy", None, "share", "too little feedback on the live version")
    allowed = max(0.0, enough[0].correct / enough[0].labelled - policy.max_accuracy_drop)
    return _judge_share("accuracy", candidate.correct, candidate.labelled, allowed, "labelled")


def judge_golden(
    *, correct: int, agreed: int, samples: int, reference_accuracy: float, policy: PromotionPolicy
) -> list[GateResult]:
    """The golden set, the same each time: no allowance for chance."""
    accuracy, agreement = correct / samples, agreed / samples
    allowed = max(0.0, reference_accuracy - policy.max_accuracy_drop)
    return [
        GateResult(
            gate="golden",
            measured=accuracy,
            allowed=allowed,
            unit="accuracy",
            status=PASSED if accuracy >= allowed else FAILED,
            note=f"{samples} samples, FP32 reference {reference_accuracy:.4g}",
        ),
        GateResult(
            gate="golden agreement",
            measured=agreement,
            allowed=policy.min_agreement,
            unit="share",
            status=PASSED if agreement >= policy.min_agreement else FAILED,
            note=f"argmax against the FP32 reference, {samples} samples",
        ),
    ]


def judge_equal_ids(gate: str, equal: Sequence[bool]) -> GateResult:
    """Whether a server cuts every golden text (or chat) into the reference's token ids."""
    if not equal:
        return _not_judged(gate, 1.0, "share", "the golden set has none")
    note = f"{sum(equal)} of {len(equal)} with equal token ids"
    if not all(equal):
        note += f", the first other one is number {equal.index(False) + 1}"
    status = PASSED if all(equal) else FAILED
    return GateResult(gate=gate, measured=sum(equal) / len(equal), allowed=1.0, unit="share", status=status, note=note)


def judge_perplexity(
    measured: float, reference: float, max_ratio: float, *, bits_per_byte: tuple[float, float]
) -> GateResult:
    """Perplexity on the golden texts against the FP32 reference's."""
    return GateResult(
        gate="golden",
        measured=measured,
        allowed=max_ratio * reference,
        unit=_PERPLEXITY,
        status=PASSED if measured <= max_ratio * reference else FAILED,
        note=f"FP32 reference {reference:.4g}; bits per byte {bits_per_byte[0]:.4g}, reference {bits_per_byte[1]:.4g}",
    )


def judge_first_choices(equal: int, total: int, min_margin: float) -> GateResult:
    """First choices where the reference's lead is clear: all of them must be the same."""
    if total == 0:
        return _not_judged("golden agreement", 1.0, "share", f"the reference leads nowhere by {min_margin:g} nats")
    return GateResult(
        gate="golden agreement",
        measured=equal / total,
        allowed=1.0,
        unit="share",
        status=PASSED if equal == total else FAILED,
        note=f"{equal} of {total} first choices that lead by {min_margin:g} nats or more",
    )


def golden_not_judged(note: str) -> GateResult:
    return _not_judged("golden", None, "accuracy", note)


def golden_unusable(note: str) -> GateResult:
    """The bundle promises a golden set that cannot be used."""
    return GateResult(gate="golden", measured=None, allowed=None, unit="", status=FAILED, note=note)


def server_failed(note: str) -> GateResult:
    """The candidate's server did not start, ended, or answered nonsense."""
    return GateResult(gate="server", measured=None, allowed=None, unit="", status=FAILED, note=note)


def too_few_requests(candidate: Counters, policy: PromotionPolicy) -> GateResult:
    """A step whose time is over before the candidate answered enough."""
    return GateResult(
        gate="requests",
        measured=float(candidate.finished),
        allowed=float(policy.min_requests),
        unit="requests",
        status=FAILED,
        note=f"within {policy.step_timeout_s:g} s",
    )


def _not_judged(gate: str, allowed: float | None, unit: str, note: str) -> GateResult:
    return GateResult(gate=gate, measured=None, allowed=allowed, unit=unit, status=NOT_JUDGED, note=note)


def _judge_share(gate: str, good: int, total: int, allowed: float, what: str) -> GateResult:
    share, note = good / total, f"{good} of {total} {what}"
    status = PASSED
    if share < allowed:
        by_chance = chance_of_at_most(good, total, allowed)
        status = FAILED if by_chance < _CHANCE else PASSED
        if status == PASSED:
            note += f"; so few happen by chance in {by_chance:.0%} of samples this small"
    return GateResult(gate=gate, measured=share, allowed=allowed, unit="share", status=status, note=note)


def chance_of_at_most(good: int, total: int, share: float) -> float:
    """P(X <= good) for X ~ Binomial(total, share): the exact one-sided test."""
    if share <= 0.0 or good >= total:
        return 1.0
    if share >= 1.0:
        return 0.0
    log_p, log_q, log_total = math.log(share), math.log1p(-share), math.lgamma(total + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(log_total - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_p + (total - k) * log_q)
            for k in range(good + 1)
        ),
    )
