"""Answers are remembered within bounds, and truth is counted against what was said."""

import json

import pytest

from serving.errors import InvalidInput, NotFound
from serving.gateway.feedback import FeedbackLimits, FeedbackMemory, count_correct


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(*rows: list[float]) -> bytes:
    data = [value for row in rows for value in row]
    return json.dumps({"outputs": [{"name": "y", "shape": [len(rows), len(rows[0])], "data": data}]}).encode()


def test_answers_are_forgotten_by_number_oldest_first() -> None:
    memory = FeedbackMemory(FeedbackLimits(max_answers=2), Clock())
    for request_id in ("a", "b", "c"):
        memory.remember(request_id, "m", "backend", b"{}")
    with pytest.raises(NotFound, match="not remembered, got a"):
        memory.find("a")
    assert memory.find("c").backend_id == "backend"


def test_answers_are_forgotten_by_age() -> None:
    clock = Clock()
    memory = FeedbackMemory(FeedbackLimits(max_age_s=10), clock)
    memory.remember("a", "m", "backend", b"{}")
    clock.now = 9.0
    assert memory.find("a")
    clock.now = 11.0
    with pytest.raises(NotFound):
        memory.find("a")


def test_answers_are_forgotten_by_bytes() -> None:
    memory = FeedbackMemory(FeedbackLimits(max_bytes=100), Clock())
    for request_id in ("a", "b", "c"):
        memory.remember(request_id, "m", "backend", b"x" * 40)
    assert len(memory) == 2


def test_an_id_used_twice_stands_for_the_later_answer() -> None:
    memory = FeedbackMemory(FeedbackLimits(max_bytes=100), Clock())
    for backend_id in ("first", "second"):
        memory.remember("a", "m", backend_id, b"x" * 60)
    assert memory.find("a").backend_id == "second"
    assert len(memory) == 1


def test_truth_comes_as_class_names_or_indices() -> None:
    said = answer([0.1, 0.9], [3.0, -1.0], [1.0, 2.0])
    assert count_correct(said, ["dog", 0, "cat"], ["cat", "dog"]) == (3, 2)
    assert count_correct(said, [1, 1, 1], []) == (3, 2)


@pytest.mark.parametrize("labels", [["dog"], ["dog", "mouse"], ["dog", 2], ["dog", True], ["dog", -1], ["dog", None]])
def test_truth_that_does_not_fit_is_refused(labels: list[object]) -> None:
    with pytest.raises(InvalidInput, match="label"):
        count_correct(answer([0.1, 0.9], [3.0, -1.0]), labels, ["cat", "dog"])


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"outputs": [{"shape": [2], "data": [1, 2]}]}', b'{"outputs": [{"shape": [1, 2], "data": [1]}]}'],
)
def test_an_answer_that_is_no_table_of_scores_has_no_classes(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a table of scores"):
        count_correct(body, ["a"], ["a"])
