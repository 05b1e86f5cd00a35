"""What counted requests show, as evidence that may be looked at after every poll.

All evidence is the logarithm of an e-value: a bet against a null hypothesis whose expected pay is at
most its stake, so that the null is true and the pay ever reaches 1/alpha with a chance of at most
alpha, however often one looks (Ville 1939; Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic
statistics and safe anytime-valid inference"). Evidence of 0 says nothing, below 0 speaks for the null.

The alternatives are exponential tilts, mixed over a grid. A request with score s, which falls on the
candidate with probability `share` under the null, falls on it with odds exp(tilt * s) times as high
under the alternative. Each request pays exp(tilt * s [on the candidate]) / (1 - share + share * exp(tilt * s)).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidInput

Floats = NDArray[np.float64]

TILTS: Final[Floats] = np.geomspace(0.01, math.log(1000.0), 64)
"""Log odds ratios of the alternatives: 11 % from one to the next loses nothing at ten standard errors."""
_RAISED: Final[Floats] = np.expm1(TILTS)
_UNIFORM: Final = 2 / 3
"""The part of the prior that is uniform over the tilt and keeps large ratios in play: three errors, all on the
candidate at 5 % of the traffic, are enough at alpha 0.0005. The rest is uniform over the tilt's logarithm."""
LOG_WEIGHTS: Final[Floats] = np.log(_UNIFORM * TILTS / TILTS.sum() + (1 - _UNIFORM) / TILTS.size)
_EVENT: Final[Floats] = np.ones(1)
"""The score of a bad event; what is not bad has none and decides nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Some bad ones out of a total."""

    bad: float
    """May be fractional: a request of several rows is one sample, bad by the share of its rows that are."""
    total: float

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.total < math.inf:
            raise InvalidInput(
                "share is impossible", got=f"{self.bad:g} of {self.total:g}", expected="0 <= bad <= total"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """A stretch of traffic that both versions shared: one canary step in one region."""

    candidate: Share
    live: Share

    @property
    def compares(self) -> bool:
        """Whether both sides answered; otherwise it says nothing about a difference."""
        return self.candidate.total > 0 and self.live.total > 0

    @property
    def candidate_share(self) -> float:
        """Of the traffic, as realised. Where `compares`."""
        return self.candidate.total / (self.candidate.total + self.live.total)

    def swapped(self) -> "Stratum":
        """The live version judged against the candidate."""
        return Stratum(candidate=self.live, live=self.candidate)


def reaches(log_e: float, alpha: float) -> bool:
    """Whether the null is refuted at level `alpha` (Ville's inequality)."""
    check_alpha(alpha)
    return log_e >= -math.log(alpha)


def excess_evidence(strata: Iterable[Stratum]) -> float:
    """Evidence that bad events fall on the candidate more often than its share of the traffic.

    Null: in no stratum is the candidate's bad share higher than the live version's. The live share need
    not be known: bad events are counted, and each is the candidate's with probability n_c / (n_c + n_l)
    at most (the conditional test of two rates, Przyborowski and Wilenski 1940). Fractional events and other
    distributions of them with the same mean are covered, since a**v <= 1 - v + v * a on [0, 1]. The realised
    share of the traffic replaces the one ordered: at any one look the mean pay stays at most 1, because the
    arithmetic mean of the two versions' factors, weighted by it, bounds their geometric mean (as in Turner, Ly and
    Grünwald 2024, "Generic E-variables for exact sequential k-sample tests"). That it moves from one look to the
    next is covered by simulation alone: false alarms over all looks stay below alpha.
    """
    known = [s for s in strata if s.compares]
    bad = np.array([s.candidate.bad + s.live.bad for s in known])
    if not bad.any():
        return 0.0
    shares = np.array([s.candidate_share for s in known])
    expected: Floats = bad @ np.log1p(shares[:, None] * _RAISED)
    return mixed(TILTS * sum(s.candidate.bad for s in known) - expected)


def above_evidence(bad: float, total: float, bound: float) -> float:
    """Evidence that the true share of bad ones is above `bound`; null: at most `bound`."""
    share = Share(bad=bad, total=total)
    if not 0 <= bound <= 1:
        raise InvalidInput("bound of a share is out of range", got=bound, expected="0 to 1")
    return mixed(_tilted(share.bad, np.array([share.total]), _EVENT, bound))


def below_evidence(good: float, total: float, bound: float) -> float:
    """Evidence that the true share of good ones is below `bound`; null: at least `bound`."""
    return above_evidence(total - good, total, 1 - bound)


def check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise InvalidInput("alpha is out of range", got=alpha, expected="more than 0, less than 1")


def mixed(log_ratios: Floats) -> float:
    """Log e-value of the mixture, from the log likelihood ratio of each tilt."""
    return float(np.logaddexp.reduce(log_ratios + LOG_WEIGHTS))


def tilted(candidate: Floats, live: Floats, scores: Floats) -> Floats:
    """Log likelihood ratio of each tilt, from both versions' answers by score.

    For scores that average 0 over both versions. Such scores and the realised share are taken from the same
    answers, which leaves the two sums of scores opposite and thus more variable than independent ones, by
    n / (n - 1). What is expected is raised by (n + 2) / (n - 1): enumerated for all ties of up to 10 answers
    and for two scores of up to 300, the mean pay at one look is then at most 1.0005 for each tilt, instead of 1.5.
    """
    both = candidate + live
    total = float(both.sum())
    spread = (total + 2) / (total - 1)
    return _tilted(float(candidate @ scores), both * spread, scores, float(candidate.sum()) / total)


def _tilted(gained: float, masses: Floats, scores: Floats, share: float) -> Floats:
    """... where the candidate's scores add up to `gained` and `masses` counts both versions."""
    expected: Floats = np.log1p(share * np.expm1(TILTS[:, None] * scores)) @ masses
    return TILTS * gained - expected
