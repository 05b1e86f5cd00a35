"""Gates that users' traffic decides: what a candidate must show before it gets more. Pure.

Where a live version answered side by side, the gates compare: *failed* when the evidence says that the candidate is
worse, *passed* when it says that it is worse by less than the gate's margin. Both are bets that may be looked
at after every poll (bounds.py), over all steps and regions together. `PromotionPolicy.false_rollbacks` is what all
failing tests of a promotion may be wrong together, so each of them gets its part: see `Budget`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, TypeVar

from serving.counters import Counters, percentile_ms
from serving.regions.deciding.bounds import (
    Share,
    Stratum,
    above_evidence,
    below_evidence,
    excess_evidence,
    reaches,
)
from serving.regions.deciding.evidence import Window, added, has_outcome, of_region, side_by_side, summed
from serving.regions.deciding.gates import ERROR_BUDGET, FAILED, INCONCLUSIVE, PASSED, POINTS, GateResult, inconclusive
from serving.regions.deciding.margins import estimated_difference, paired_within_evidence, within_evidence
from serving.regions.deciding.policy import (
    ACCURACY,
    AGREEMENT,
    ERRORS,
    EVIDENCE_GATES,
    LATENCY,
    REFUSALS,
    SCORE,
    PromotionPolicy,
)
from serving.regions.deciding.ranks import LatencyStratum, faster_than_evidence, slower_evidence, tail_strata

_Measured = TypeVar("_Measured")
"""What a gate takes of one window."""
_TESTS: Final = len(EVIDENCE_GATES) + 3
"""Tests that may fail: errors beside a control and without one, latency by ranks and by its tail, accuracy by pairs
and by all labels, the others once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How a promotion's false rollbacks are divided: equally over tests, and over scopes of evidence.

    Scopes are all regions together, and each region alone, both side by side and against what was recorded: a version
    that is bad in one region must not hide behind the others.
    """

    false_rollbacks: float
    regions: int

    @property
    def alpha(self) -> float:
        scopes = 1 + 2 * self.regions
        return self.false_rollbacks / (_TESTS * scopes)


def judge(windows: Sequence[Window], region: str, policy: PromotionPolicy, *, regions: int) -> list[GateResult]:
    """All gates that users' traffic decides, from every window of the promotion so far.

    `windows` holds finished windows of any region and, last, the one that is open in `region`.
    """
    alpha = Budget(false_rollbacks=policy.false_rollbacks, regions=regions).alpha
    counted = [window.counted for window in windows]
    if counted[-1].live is None:
        return _judge_alone([window for window in counted if window.live is None], region, policy, alpha)
    comparison = _Comparison(
        together=side_by_side(counted),
        region=region,
        recorded=[window for window in counted[-1:] if window.recorded],
        policy=policy,
        alpha=alpha,
    )
    return [
        comparison.errors(),
        comparison.shares(REFUSALS, _refusals, policy.refusal_margin),
        comparison.latency(),
        judge_agreement(counted, of_region(counted, region), policy, alpha),
        comparison.accuracy(),
        judge_score(counted, policy, alpha),
    ]


def _faults(counters: Counters) -> Share:
    """Requests that ended in a fault, or hang beyond their bound."""
    return Share(bad=counters.users.faults + counters.overdue, total=counters.users.finished + counters.overdue)


def _refusals(counters: Counters) -> Share:
    return Share(bad=counters.users.refused, total=counters.users.finished + counters.overdue)


def _wrong(counters: Counters) -> Share:
    return Share(bad=min(max(0.0, counters.labelled - counters.correct), counters.labelled), total=counters.labelled)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Comparison:
    """The gates that hold a candidate against the live version."""

    together: list[Window]
    """Windows of all regions in which both answered side by side."""
    region: str
    """The one that is judged: its windows are a scope of evidence by themselves."""
    recorded: list[Window]
    """The open window, where its live counts were recorded earlier."""
    policy: PromotionPolicy
    alpha: float

    @property
    def shown(self) -> list[Window]:
        """What a gate may pass on: side by side, or, where a policy has no such step, one after the other."""
        return self.together or self.recorded

    def errors(self) -> GateResult:
        """Faults against the live version's; one that nobody asked, or that is beyond its error budget, is no control.

        A live server that crashes beside a bad candidate makes both alike: there the budget is the candidate's bound.
        """
        compared, budget = self.shares(ERRORS, _faults, self.policy.error_margin), self.policy.error_budget
        scopes = [(_total(of), _total_live(of)) for of in (self.shown, of_region(self.shown, self.region))]
        shares = [(_faults(ours), _faults(theirs)) for ours, theirs in scopes]
        uncontrolled = [ours for ours, live in shares if ours.total and not _controls(live, budget, self.alpha)]
        if compared.status == FAILED or not uncontrolled:
            return compared
        bounded = _bounded(ERRORS, uncontrolled, budget, self.policy, self.alpha)
        note = f"{compared.note}: no control, so error_budget {budget:g} is the bound"
        if bounded.status == FAILED or compared.status == PASSED:
            return replace(bounded, note=note)
        return replace(compared, note=note)

    def shares(self, gate: str, count: Callable[[Counters], Share], margin: float) -> GateResult:
        """A share of requests that must not grow by `margin`."""
        together, recorded = _strata(self.together, count), _strata(self.recorded, count)
        shown = together or recorded
        scopes = self._scopes(self.together, together)
        status = self._status(scopes, recorded, excess_evidence, lambda strata: _within(strata, margin))
        note = _shares_note(shown)
        if status != FAILED and self._worse_than_recorded(recorded, margin):
            status, shown, note = FAILED, recorded, f"{_shares_note(recorded)}, as recorded before"
        difference = estimated_difference(shown)
        return GateResult(gate=gate, measured=difference, allowed=margin, unit=POINTS, status=status, note=note)

    def _scopes(self, windows: Sequence[Window], measured: Sequence[_Measured]) -> list[Sequence[_Measured]]:
        """What was measured of each window: of all regions together and, where there are others, of this one."""
        here = [of_one for window, of_one in zip(windows, measured, strict=True) if window.region == self.region]
        return [measured] if len(here) == len(measured) else [measured, here]

    def _status(
        self,
        scopes: Sequence[Sequence[_Measured]],
        recorded: Sequence[_Measured],
        worse: Callable[[Sequence[_Measured]], float],
        within: Callable[[Sequence[_Measured]], float],
    ) -> str:
        """A difference that is real but within the margin is one that the policy allows.

        But a region in which it is beyond fails, however good the others are.
        """
        alpha, false_passes = self.alpha, self.policy.false_passes
        for scope in scopes:
            if reaches(worse(scope), alpha) and not reaches(within(scope), false_passes):
                return FAILED
        passed = reaches(within(scopes[0] if self.together else recorded), false_passes)
        return PASSED if passed else INCONCLUSIVE

    def _worse_than_recorded(self, recorded: list[Stratum], margin: float) -> bool:
        """What was recorded earlier is no control for a change of the hour: it takes more than the margin as well."""
        difference = estimated_difference(recorded)
        return difference is not None and difference >= margin and reaches(excess_evidence(recorded), self.alpha)

    def latency(self) -> GateResult:
        """Slower by ranks, or with a longer tail: a version that is slow for one user in ten hardly moves the ranks."""
        factor, shown, bounds_ms = 1.0 + self.policy.latency_margin, self.shown, _bounds(self.shown)
        timed, recorded = [window for window in self.together if _is_timed(window)], _timed(self.recorded)
        status = self._status(
            self._scopes(timed, _timed(timed)),
            recorded,
            lambda strata: _slower(strata, bounds_ms, 1.0),
            lambda strata: _within_latency(strata, bounds_ms, factor),
        )
        if status != FAILED and reaches(_slower(recorded, _bounds(self.recorded), factor), self.alpha):
            status, shown = FAILED, self.recorded
        if status == FAILED and not _any_beyond(timed or self.recorded, bounds_ms, factor):
            status = INCONCLUSIVE
        ours = summed(window.candidate.users.latencies for window in shown)
        theirs = summed(window.live.users.latencies for window in shown if window.live is not None)
        p95, live_p95 = percentile_ms(bounds_ms, ours, 0.95), percentile_ms(bounds_ms, theirs, 0.95)
        p50, live_p50 = percentile_ms(bounds_ms, ours, 0.5), percentile_ms(bounds_ms, theirs, 0.5)
        if p95 is None or live_p95 is None:
            return inconclusive(LATENCY, factor, "x p95", "no answers of both versions were timed")
        note = (
            f"p50 {p50:.4g} and {live_p50:.4g} ms, p95 {p95:.4g} and {live_p95:.4g} ms, "
            f"{sum(ours)} and {sum(theirs)} answers"
        )
        return GateResult(gate=LATENCY, measured=p95 / live_p95, allowed=factor, unit="x p95", status=status, note=note)

    def accuracy(self) -> GateResult:
        """On feedback: by pairs where both answered the same request, and by each one's own labels."""
        margin = self.policy.max_accuracy_drop
        labels = self.shares(ACCURACY, _wrong, margin)
        shown = [window.candidate for window in self.shown]
        pairs = sum(ours.pairs for ours in shown)
        if labels.status == FAILED or pairs == 0:
            return labels
        lost, won = sum(ours.lost for ours in shown), sum(ours.won for ours in shown)
        status = self._status(
            self._scopes(self.together, self.together),
            self.recorded,
            lambda scope: excess_evidence([_paired(window) for window in scope]),
            lambda scope: _within_pairs(scope, margin),
        )
        return GateResult(
            gate=ACCURACY,
            measured=(lost - won) / pairs,
            allowed=margin,
            unit=POINTS,
            status=PASSED if status == INCONCLUSIVE and labels.status == PASSED else status,
            note=f"{pairs} pairs: {lost:g} lost, {won:g} won; {labels.note}",
        )


def _status(scopes: Sequence[tuple[bool, bool]], *, passed: bool) -> str:
    """From (worse, within the margin) of each scope of evidence.

    A difference that is real but within the margin is one that the policy allows; but a region in which it is
    beyond fails, however good the others are.
    """
    if any(worse and not within for worse, within in scopes):
        return FAILED
    return PASSED if passed else INCONCLUSIVE


def _strata(windows: Sequence[Window], count: Callable[[Counters], Share]) -> list[Stratum]:
    return [Stratum(candidate=count(w.candidate), live=count(w.live)) for w in windows if w.live is not None]


def _controls(live: Share, budget: float, alpha: float) -> bool:
    """Whether a candidate can be held against the live version: somebody asked it, and it kept to its budget."""
    return live.total > 0 and not _is_spent(live, budget, alpha)


def _is_spent(live: Share, budget: float, alpha: float) -> bool:
    """Whether the live version fails more often than its error budget allows; a budget of 1 is never spent."""
    return budget < 1 and reaches(above_evidence(live.bad, live.total, budget), alpha)


def _shares_note(strata: Sequence[Stratum]) -> str:
    ours = [stratum.candidate for stratum in strata]
    theirs = [stratum.live for stratum in strata]
    return (
        f"{sum(s.bad for s in ours):g} of {sum(s.total for s in ours):g}, "
        f"live version {sum(s.bad for s in theirs):g} of {sum(s.total for s in theirs):g}"
    )


def _within(strata: Sequence[Stratum], margin: float) -> float:
    """Nothing ever shows a difference below 0, and every difference is below 1."""
    if margin >= 1:
        return math.inf if any(stratum.compares for stratum in strata) else 0.0
    return within_evidence(strata, margin) if margin > 0 else 0.0


def _paired(window: Window) -> Stratum:
    """Of the pairs on which one was right and one wrong, a version that is no worse loses half."""
    lost, won, pairs = _pairs([window])
    return Stratum(candidate=Share(bad=lost, total=pairs), live=Share(bad=won, total=pairs))


def _pairs(windows: Sequence[Window]) -> tuple[float, float, int]:
    """Lost, won and all pairs; sums of fractions of rows may exceed the pairs by their rounding."""
    pairs = sum(window.candidate.pairs for window in windows)
    lost = min(sum(window.candidate.lost for window in windows), float(pairs))
    return lost, min(sum(window.candidate.won for window in windows), pairs - lost), pairs


def _timed(windows: Sequence[Window]) -> list[LatencyStratum]:
    return [
        LatencyStratum(candidate=w.candidate.users.latencies, live=w.live.users.latencies)
        for w in windows
        if w.live is not None and _is_timed(w)
    ]


def _is_timed(window: Window) -> bool:
    live = () if window.live is None else window.live.users.latencies
    return bool(window.candidate.users.latencies and live)


def _slower(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float) -> float:
    """Evidence by ranks or by the tail, whichever is stronger; as a mean of both it is evidence still."""
    if not strata:
        return 0.0
    tail = excess_evidence(tail_strata(strata, bounds_ms, factor=factor))
    return max(slower_evidence(strata, bounds_ms, factor), tail) - math.log(2)


def _any_beyond(windows: Sequence[Window], bounds_ms: Sequence[float], factor: float) -> bool:
    """Whether any answer was slower than the margin allows of the live version's fastest one: where none was, the
    policy allows whatever was seen, and a tail that few answers cannot show yet refutes nothing."""
    ours = summed(window.candidate.users.latencies for window in windows)
    theirs = summed(window.live.users.latencies for window in windows if window.live is not None)
    slowest = max((number for number, count in enumerate(ours) if count), default=0)
    fastest = min((number for number, count in enumerate(theirs) if count), default=0)
    edges_ms = (0.0, *bounds_ms, math.inf)
    return edges_ms[slowest + 1] > factor * edges_ms[fastest]


def _within_latency(strata: Sequence[LatencyStratum], bounds_ms: Sequence[float], factor: float) -> float:
    """Evidence by ranks and by the tail: both must say so."""
    if not strata:
        return 0.0
    tail = [stratum.swapped() for stratum in tail_strata(strata, bounds_ms, factor=factor)]
    return min(faster_than_evidence(strata, bounds_ms, factor), excess_evidence(tail))


def _within_pairs(windows: Sequence[Window], margin: float) -> float:
    lost, won, pairs = _pairs(windows)
    if margin >= 1:
        return math.inf if pairs else 0.0
    return paired_within_evidence(lost, won, pairs, margin) if pairs and margin > 0 else 0.0


def _bounds(windows: Sequence[Window]) -> tuple[float, ...]:
    return next((w.candidate.bounds_ms for w in windows if w.candidate.bounds_ms), ())


def judge_agreement(
    together: Sequence[Window], here: Sequence[Window], policy: PromotionPolicy, alpha: float
) -> GateResult:
    """Share of compared requests that candidate and live version answered alike, against its bound."""
    scopes = [
        (sum(w.candidate.agreed for w in scope), sum(w.candidate.compared for w in scope)) for scope in (together, here)
    ]
    return _one_sample(AGREEMENT, scopes, policy.min_agreement, policy, alpha, "compared")


def judge_score(together: Sequence[Window], policy: PromotionPolicy, alpha: float) -> GateResult:
    """Mean score of mirrored completions, against its bound."""
    scopes = [(sum(w.scores.total for w in together), sum(w.scores.count for w in together))]
    return _one_sample(SCORE, scopes, policy.min_score, policy, alpha, "scored")


def _one_sample(
    gate: str,
    scopes: Sequence[tuple[float, int]],
    bound: float,
    policy: PromotionPolicy,
    alpha: float,
    what: str,
) -> GateResult:
    good, count = scopes[0]
    if count == 0:
        return inconclusive(gate, bound, "share", f"no request was {what}")
    judged = [
        (
            reaches(below_evidence(min(g, n), n, bound), alpha),
            reaches(above_evidence(min(g, n), n, bound), policy.false_passes),
        )
        for g, n in scopes
        if n
    ]
    return GateResult(
        gate=gate,
        measured=good / count,
        allowed=bound,
        unit="share",
        status=_status(judged, passed=judged[0][1]),
        note=f"{good:g} of {count} {what}",
    )


# Without a live version


_SLOW_SHARE: Final = 0.05
"""What lies above a p95."""
_ALONE: Final = "no live version to compare with"
_MOST: Final = 0.5
"""Without a live version nobody knows how many requests are malformed; but most users must get an answer."""


def _judge_alone(windows: Sequence[Window], region: str, policy: PromotionPolicy, alpha: float) -> list[GateResult]:
    """Absolute bounds, where nothing was live before: over all such regions, and in this one."""
    together, here = _total(windows), _total(of_region(windows, region))
    return [
        _bounded(ERRORS, [_faults(together), _faults(here)], policy.max_error_rate, policy, alpha),
        _bounded(REFUSALS, [_refusals(together), _refusals(here)], _MOST, policy, alpha),
        _bounded_latency([together, here], policy, alpha),
        inconclusive(AGREEMENT, policy.min_agreement, "share", _ALONE),
        inconclusive(ACCURACY, policy.max_accuracy_drop, POINTS, _ALONE),
        inconclusive(SCORE, policy.min_score, "share", _ALONE),
    ]


def _total(windows: Sequence[Window]) -> Counters:
    return reduce(added, (window.candidate for window in windows), Counters())


def _total_live(windows: Sequence[Window]) -> Counters:
    return reduce(added, (window.live for window in windows if window.live is not None), Counters())


def _bounded(gate: str, scopes: Sequence[Share], bound: float, policy: PromotionPolicy, alpha: float) -> GateResult:
    """A share against its absolute bound; what passes is the first scope, what fails is any."""
    share = scopes[0]
    if share.total == 0:
        return inconclusive(gate, bound, "share", "no request has an outcome")
    judged = [
        (
            reaches(above_evidence(scope.bad, scope.total, bound), alpha),
            reaches(below_evidence(scope.bad, scope.total, bound), policy.false_passes),
        )
        for scope in scopes
    ]
    return GateResult(
        gate=gate,
        measured=share.bad / share.total,
        allowed=bound,
        unit="share",
        status=_status(judged, passed=judged[0][1]),
        note=f"{share.bad:g} of {share.total:g} requests; {_ALONE}",
    )


def _bounded_latency(scopes: Sequence[Counters], policy: PromotionPolicy, alpha: float) -> GateResult:
    """p95 against its absolute bound: no more than one answer in twenty may be slower than it."""
    p95 = scopes[0].percentile_ms(0.95)
    if p95 is None:
        return inconclusive(LATENCY, policy.max_p95_ms, "ms p95", "no answer was timed")
    slow = [_slower_than(counters, policy.max_p95_ms) for counters in scopes]
    return replace(
        _bounded(LATENCY, slow, _SLOW_SHARE, policy, alpha),
        measured=p95,
        allowed=policy.max_p95_ms,
        unit="ms p95",
        note=f"{slow[0].bad:g} of {slow[0].total:g} answers slower; {_ALONE}",
    )


def _slower_than(counters: Counters, bound_ms: float) -> Share:
    """Answers in buckets that begin at the bound or above it."""
    counts = counters.users.latencies
    lower = (0.0, *counters.bounds_ms)
    slow = sum(count for start, count in zip(lower, counts, strict=True) if start >= bound_ms) if counts else 0
    return Share(bad=slow, total=sum(counts))


def judge_requests(window: Window, policy: PromotionPolicy) -> GateResult:
    """Whether enough of them have an outcome: nothing was asked is no evidence of anything."""
    count, replayed = has_outcome(window.counted.candidate), window.candidate.synthetic.finished
    note = f"{replayed} {'of them' if window.replays_count else 'more'} replayed" if replayed else ""
    return GateResult(
        gate="requests",
        measured=float(count),
        allowed=float(policy.min_requests),
        unit="requests",
        status=PASSED if count >= policy.min_requests else INCONCLUSIVE,
        note=note,
    )


def judge_error_budget(live: Counters, policy: PromotionPolicy) -> GateResult:
    """Whether the live version is well enough for a change: evidence that it fails more than the budget allows."""
    share = _faults(live)
    if share.total == 0:
        return inconclusive(ERROR_BUDGET, policy.error_budget, "share", "the live version has answered nobody yet")
    spent = _is_spent(share, policy.error_budget, policy.false_rollbacks)
    return GateResult(
        gate=ERROR_BUDGET,
        measured=share.bad / share.total,
        allowed=policy.error_budget,
        unit="share",
        status=FAILED if spent else PASSED,
        note=f"{share.bad:g} of {share.total:g} requests of the live version; error_budget 1 lets a remedy through",
    )
