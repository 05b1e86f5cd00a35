"""How a gate ends, what the verdict of a step's gates is, and the gates in which nothing is left to chance. Pure.

A gate ends in `passed`, `failed` or `inconclusive`; inconclusive is never passed. Those that users' traffic decides are
in `evidence_gates.py`; here are the golden set's, the same requests each time, and what no figure decides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from serving.regions.deciding.policy import (
    ACCURACY,
    AGREEMENT,
    ERRORS,
    LATENCY,
    REFUSALS,
    SCORE,
    PromotionPolicy,
)

PASSED: Final = "passed"
FAILED: Final = "failed"
INCONCLUSIVE: Final = "inconclusive"
ERROR_BUDGET: Final = "error budget"
_AT_MOST: Final = frozenset({ERRORS, REFUSALS, LATENCY, ACCURACY, ERROR_BUDGET})
_COMPARED: Final = frozenset({AGREEMENT, ACCURACY, SCORE})
"""They say nothing without a live version."""
_PERPLEXITY: Final = "perplexity"
POINTS: Final = "points"
"""Percentage points, as a share: 0.01 is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    gate: str
    """errors | refusals | latency | agreement | accuracy | score | golden | golden agreement | tokenizer |
    chat template | server | requests | error budget | verdict."""
    measured: float | None
    allowed: float | None
    unit: str
    status: str
    """`passed` | `failed` | `inconclusive`."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "GateResult":
        """Fields of later versions are ignored."""
        known = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in raw.items() if name in known})

    def sentence(self) -> str:
        """Why it failed, for the reason of a rollback."""
        if self.measured is None or self.allowed is None:
            return f"gate {self.gate} failed: {self.note}"
        bound = "at most" if self.gate in _AT_MOST or self.unit == _PERPLEXITY else "at least"
        note = f" ({self.note})" if self.note else ""
        figures = f"measured {self.measured:.4g}, allowed {bound} {self.allowed:.4g} {self.unit}"
        return f"gate {self.gate} failed: {figures}{note}"


def failures(results: Sequence[GateResult]) -> list[GateResult]:
    return [result for result in results if result.status == FAILED]


def required(policy: PromotionPolicy, *, alone: bool) -> list[str]:
    """The gates that must pass; `alone`, without a live version, only those that need none."""
    return [gate for gate in policy.required_gates if not alone or gate not in _COMPARED]


def verdict(results: Sequence[GateResult], policy: PromotionPolicy, *, alone: bool = False) -> str:
    """`failed` if any gate failed, `passed` if all that the policy requires passed, else `inconclusive`."""
    if failures(results):
        return FAILED
    statuses = {result.gate: result.status for result in results}
    passed = all(statuses.get(gate) == PASSED for gate in required(policy, alone=alone))
    return PASSED if passed else INCONCLUSIVE


def missing(results: Sequence[GateResult], policy: PromotionPolicy, *, alone: bool = False) -> str:
    """The required gates that have not passed, for a person."""
    wanted = required(policy, alone=alone)
    return ", ".join(r.gate for r in results if r.gate in wanted and r.status != PASSED)


def inconclusive(gate: str, allowed: float | None, unit: str, note: str) -> GateResult:
    return GateResult(gate=gate, measured=None, allowed=allowed, unit=unit, status=INCONCLUSIVE, note=note)


# The golden set: the same requests each time, so nothing is left to chance


def judge_golden(
    *, correct: int, agreed: int, samples: int, reference_accuracy: float, how: str, policy: PromotionPolicy
) -> list[GateResult]:
    """The golden set's labels, and the FP32 reference's answers (`how` two answers are held to agree)."""
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
            note=f"{how}, {samples} samples",
        ),
    ]


def judge_equal_ids(gate: str, equal: Sequence[bool]) -> GateResult:
    """Whether a server cuts every golden text (or chat) into the reference's token ids."""
    if not equal:
        return inconclusive(gate, 1.0, "share", "the golden set has none")
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
        return inconclusive("golden agreement", 1.0, "share", f"the reference leads nowhere by {min_margin:g} nats")
    return GateResult(
        gate="golden agreement",
        measured=equal / total,
        allowed=1.0,
        unit="share",
        status=PASSED if equal == total else FAILED,
        note=f"{equal} of {total} first choices that lead by {min_margin:g} nats or more",
    )


def golden_not_judged(note: str) -> GateResult:
    return inconclusive("golden", None, "accuracy", note)


def golden_unusable(note: str) -> GateResult:
    """The bundle promises a golden set that cannot be used."""
    return GateResult(gate="golden", measured=None, allowed=None, unit="", status=FAILED, note=note)


# What no figure decides


def server_failed(note: str) -> GateResult:
    """The candidate's server did not start, ended, or answered nonsense."""
    return GateResult(gate="server", measured=None, allowed=None, unit="", status=FAILED, note=note)


def gateway_silent(note: str) -> GateResult:
    """The region's gateway took no weights, or told no counters."""
    return GateResult(gate="gateway", measured=None, allowed=None, unit="", status=FAILED, note=note)
