"""Pairs a label with both versions' answers to one request: who of the two was right tells more than two averages.

A request that the mirror repeats has two predictions, its label comes by feedback, and either may come first. What
waits for the other is bounded in number and age.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.gateway.feedback import FeedbackLimits, share_right
from serving.gateway.ledger import Ledger


@dataclass(slots=True)
class _Waiting:
    model: str
    candidate: str
    at: float
    both: tuple[Sequence[int], Sequence[int]] | None = None
    """What the candidate and the live version predicted."""
    truth: Sequence[int] | None = None


class Pairing:
    """By the nonce of the answer's token."""

    def __init__(self, ledger: Ledger, limits: FeedbackLimits, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._limits = limits
        self._clock = clock
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, nonce: bytes, model: str, candidate: str) -> None:
        """The answer is about to be repeated."""
        now = self._clock()
        self._waiting[nonce] = _Waiting(model, candidate, now)
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if len(self._waiting) <= self._limits.max_pairs and now - oldest.at <= self._limits.pair_life_s:
                return
            self._waiting.popitem(last=False)

    def forget(self, nonce: bytes) -> None:
        """There will be no comparison."""
        self._waiting.pop(nonce, None)

    def compared(self, nonce: bytes, candidate: Sequence[int], live: Sequence[int]) -> None:
        waiting = self._find(nonce)
        if waiting is not None:
            waiting.both = (candidate, live)
            self._note(nonce, waiting)

    def labelled(self, nonce: bytes, truth: Sequence[int]) -> None:
        """The first label of an answer; later ones must not come here."""
        waiting = self._find(nonce)
        if waiting is not None:
            waiting.truth = truth
            self._note(nonce, waiting)

    def _find(self, nonce: bytes) -> _Waiting | None:
        waiting = self._waiting.get(nonce)
        if waiting is not None and self._clock() - waiting.at > self._limits.pair_life_s:
            del self._waiting[nonce]
            return None
        return waiting

    def _note(self, nonce: bytes, waiting: _Waiting) -> None:
        if waiting.both is None or waiting.truth is None:
            return
        del self._waiting[nonce]
        if all(len(predicted) == len(waiting.truth) for predicted in waiting.both):
            shares = [share_right(predicted, waiting.truth) for predicted in waiting.both]
            self._ledger.counters(waiting.model, waiting.candidate).paired(*shares)
