"""Remembers recent answers, so that the truth can be told about them later.

Bounded by number, bytes and age. The answer's bytes are kept as they came and read only when
feedback arrives: the request's own path pays for one dictionary entry.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.errors import InvalidInput, NotFound
from serving.gateway.answers import predicted_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedbackLimits:
    max_answers: int = 20_000
    max_bytes: int = 64 * 1024 * 1024
    """Of answers' bodies; the memory that forgetting guards."""
    max_age_s: float = 900.0
    """Truth that comes later than this no longer bears on a running canary."""


@dataclass(slots=True)
class Remembered:
    """One answer: whose it was and what it said."""

    model: str
    backend_id: str
    body: bytes
    at: float
    labelled: bool = False


class FeedbackMemory:
    """Answers by request id, oldest first."""

    def __init__(self, limits: FeedbackLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def remember(self, request_id: str, model: str, backend_id: str, body: bytes) -> None:
        self._forget(request_id)
        self._answers[request_id] = Remembered(model, backend_id, body, self._clock())
        self._bytes += len(body)
        self._shrink()

    def find(self, request_id: str) -> Remembered:
        """The answer, or NotFound when it was never given here or is forgotten."""
        self._shrink()
        remembered = self._answers.get(request_id)
        if remembered is None:
            raise NotFound(
                "answer is not remembered",
                got=request_id,
                expected=f"the request id of an answer of the last {self._limits.max_age_s:g} s",
            )
        return remembered

    def _shrink(self) -> None:
        limits, oldest_allowed = self._limits, self._clock() - self._limits.max_age_s
        while self._answers:
            request_id, oldest = next(iter(self._answers.items()))
            over = len(self._answers) > limits.max_answers or self._bytes > limits.max_bytes
            if not over and oldest.at >= oldest_allowed:
                return
            self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        forgotten = self._answers.pop(request_id, None)
        if forgotten is not None:
            self._bytes -= len(forgotten.body)


def count_correct(answer: bytes, labels: Sequence[object], classes: Sequence[str]) -> tuple[int, int]:
    """(rows, correct rows) of an answer under the true labels, each a class name or a class index."""
    predicted = predicted_classes(answer)
    if len(labels) != len(predicted):
        raise InvalidInput("labels do not match the answer", got=f"{len(labels)} labels", expected=f"{len(predicted)}")
    truth = [_class_index(label, classes) for label in labels]
    return len(predicted), sum(a == b for a, b in zip(predicted, truth, strict=True))


def _class_index(label: object, classes: Sequence[str]) -> int:
    if type(label) is int and label >= 0 and (not classes or label < len(classes)):
        return label
    if isinstance(label, str) and label in classes:
        return classes.index(label)
    raise InvalidInput("label is unknown", got=label, expected="a class index or one of the model's classes")
