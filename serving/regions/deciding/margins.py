"""How much worse a candidate may still be than the live version, after what was counted.

The evidence of bounds.py, turned round: a bet against "worse by the margin or more". It refutes the
null by betting on each request, at odds that are fair where the candidate is worse by exactly the
margin (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting"). No
normal approximation: it holds for rates of 0 and for the first request.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from serving.errors import InvalidInput
from serving.regions.deciding.bounds import Floats, Share, Stratum, check_alpha, reaches

_CENTRES: Final[Floats] = 1 / (1 + np.exp(-np.linspace(-9.0, 3.0, 9)))
"""Live shares that the bets are centred at, before the margin takes its room: 0.01 % to 95 %. Coarse, since
a wrong centre costs nothing to second order: the difference and the mean of two shares are orthogonal."""
_STAKES: Final[Floats] = np.array([1.5, 1.0, 0.5, 0.25])
"""Stakes, as multiples of the best one on a candidate that is no worse. 1.5 is the best one on a candidate that
is better by half of the margin, 0.5 on one that uses up half of it, 0.25 three quarters."""
_STAKE_WEIGHTS: Final[Floats] = np.array([0.1, 0.65, 0.15, 0.1])
_LARGEST: Final = 0.99
"""Of the stake that one request could lose entirely."""
_MARGINS: Final[Floats] = 1 / (1 + np.exp(-np.linspace(-11.5, 7.0, 38)))
"""Where a bound is looked for first: 1e-5 to 0.999."""
_HALVINGS: Final = 10
_PAIR_STAKES: Final[Floats] = np.geomspace(0.01, _LARGEST, 16)
_PAIR_LOG_WEIGHTS: Final[Floats] = np.log(0.5 * _PAIR_STAKES / _PAIR_STAKES.sum() + 0.5 / _PAIR_STAKES.size)
"""Half of the prior keeps to large stakes, the best ones where versions hardly ever differ."""


def within_evidence(strata: Sequence[Stratum], margin: float) -> float:
    """Log e-value that the candidate's bad share is less than `margin` above the live version's.

    Null: candidate - live >= margin, on average over the strata as the stakes weigh them. With live share
    centred at r and a stake b, a candidate's request pays 1 - b / share * (bad - r - margin), a live one
    1 + b / (1 - share) * (bad - r): together 1 - b * (candidate - live - margin) on average, for any r.
    The best stake is (margin - difference) / variance of that figure.
    """
    _check_margin(margin)
    known = [s for s in strata if s.compares]
    if not known:
        return 0.0
    ours, theirs = _columns([s.candidate for s in known]), _columns([s.live for s in known])
    share = _column([s.candidate_share for s in known])
    live = (1 - margin) * _CENTRES[:, None]
    candidate = live + margin
    variance = candidate * (1 - candidate) / share + live * (1 - live) / (1 - share)
    stake = np.minimum(_STAKES * margin / variance, _LARGEST * np.minimum(share / (1 - candidate), (1 - share) / live))
    log_pay = _log_pay(*ours, candidate, -stake / share) + _log_pay(*theirs, live, stake / (1 - share))
    prior = np.log(_STAKE_WEIGHTS / _CENTRES.size)
    return float(np.logaddexp.reduce(log_pay.sum(axis=0) + prior, axis=None))


def _columns(shares: Sequence[Share]) -> tuple[Floats, Floats]:
    """Bad ones and the others."""
    return _column([s.bad for s in shares]), _column([s.total - s.bad for s in shares])


def _column(values: Sequence[float]) -> Floats:
    """One for each stratum, before the centres (rows) and stakes (columns)."""
    return np.array(values, dtype=np.float64)[:, None, None]


def _log_pay(bad: Floats, good: Floats, centre: Floats, stake: Floats) -> Floats:
    """Of requests that pay 1 + stake * (bad - centre); fractional ones less, since the logarithm is concave."""
    paid: Floats = bad * np.log1p(stake * (1 - centre)) + good * np.log1p(-stake * centre)
    return paid


def difference_upper(strata: Sequence[Stratum], alpha: float) -> float:
    """Upper confidence bound on candidate - live that holds at every look at once; 1 when nothing is known.

    The smallest margin that `within_evidence` refutes together with all larger ones, to 0.1 %; never below 1e-5.
    """
    return _smallest_refuted(lambda margin: within_evidence(strata, margin), alpha)


def estimated_difference(strata: Sequence[Stratum]) -> float | None:
    """Candidate - live, weighted over the strata by Mantel and Haenszel's n_c n_l / (n_c + n_l); None without any."""
    shared = [s for s in strata if s.compares]
    if not shared:
        return None
    weights = [s.candidate_share * s.live.total for s in shared]
    differences = [s.candidate.bad / s.candidate.total - s.live.bad / s.live.total for s in shared]
    return math.fsum(w * d for w, d in zip(weights, differences, strict=True)) / math.fsum(weights)


def paired_within_evidence(lost: float, won: float, pairs: float, margin: float) -> float:
    """Log e-value that fewer than `margin` more pairs were lost than won, as a share of all.

    Null: the mean of lost - won over the pairs is at least `margin`. A pair pays 1 - stake * (lost - won - margin).
    """
    _check_pairs(lost, won, pairs)
    _check_margin(margin)
    stake = _PAIR_STAKES / (1 - margin)
    log_pay = (
        lost * np.log1p(-stake * (1 - margin))
        + won * np.log1p(stake * (1 + margin))
        + (pairs - lost - won) * np.log1p(stake * margin)
    )
    return float(np.logaddexp.reduce(log_pay + _PAIR_LOG_WEIGHTS))


def paired_difference_upper(lost: float, won: float, pairs: float, alpha: float) -> float:
    """Upper confidence bound on (lost - won) / pairs, as `difference_upper`.

    Lost is the mass of pairs where the live version was right and the candidate wrong, won the reverse.
    """
    return _smallest_refuted(lambda margin: paired_within_evidence(lost, won, pairs, margin), alpha)


def _smallest_refuted(evidence: Callable[[float], float], alpha: float) -> float:
    check_alpha(alpha)
    open_ones = [i for i, margin in enumerate(_MARGINS) if not reaches(evidence(float(margin)), alpha)]
    if not open_ones:
        return float(_MARGINS[0])
    if open_ones[-1] == _MARGINS.size - 1:
        return 1.0
    below, above = float(_MARGINS[open_ones[-1]]), float(_MARGINS[open_ones[-1] + 1])
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        below, above = (below, middle) if reaches(evidence(middle), alpha) else (middle, above)
    return above


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise InvalidInput("margin is out of range", got=margin, expected="more than 0, less than 1")


def _check_pairs(lost: float, won: float, pairs: float) -> None:
    if not (lost >= 0 and won >= 0 and lost + won <= pairs < math.inf):
        raise InvalidInput(
            "pairs are impossible",
            got=f"{lost:g} lost and {won:g} won of {pairs:g}",
            expected="lost >= 0, won >= 0, lost + won <= pairs",
        )
