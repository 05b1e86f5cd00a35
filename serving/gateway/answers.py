"""Reading a classifier's answer: rows of scores from the first output of a v2 response.

Lists, not arrays: answers are a few rows of scores, and the gateway starts faster without NumPy.
"""

import math
from typing import Any

from pydantic_core import from_json

from serving.errors import InvalidInput


def score_rows(body: bytes) -> list[list[float]]:
    """The first output as [rows][classes]; InvalidInput if it is not such a table."""
    try:
        first = from_json(body)["outputs"][0]
        shape, data = first["shape"], first["data"]
        rows, columns = shape
    except (ValueError, KeyError, TypeError, IndexError) as broken:
        raise _not_a_table(body) from broken
    if not _is_table(rows, columns, data):
        raise _not_a_table(body)
    return [data[start : start + columns] for start in range(0, rows * columns, columns)]


def _is_table(rows: Any, columns: Any, data: Any) -> bool:
    return (
        type(rows) is int
        and type(columns) is int
        and rows >= 1
        and columns >= 1
        and isinstance(data, list)
        and len(data) == rows * columns
        and all(type(value) in (float, int) for value in data)
    )


def _not_a_table(body: bytes) -> InvalidInput:
    return InvalidInput(
        "first output is not a table of scores", got=body[:80], expected="numbers of shape [rows, classes]"
    )


def argmax(scores: list[float]) -> int:
    """Index of the highest score, the first one of equals."""
    return scores.index(max(scores))


def predicted_classes(body: bytes) -> list[int]:
    """The class of each row."""
    return [argmax(scores) for scores in score_rows(body)]


def top_probability(scores: list[float]) -> float:
    """The softmax of the highest score: 1 / sum(exp(score - highest))."""
    highest = max(scores)
    return 1.0 / math.fsum(math.exp(score - highest) for score in scores)
