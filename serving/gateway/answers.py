"""Reading a model server's answer to an infer request: whether the protocol allows it, and what it predicts.

Lists, not arrays: answers are a few rows of scores, and the gateway starts faster without NumPy.
"""

import math
from typing import Any, Final

from pydantic_core import from_json

from serving.errors import BadUpstream, InvalidInput

_READ_BYTES: Final = 256 * 1024
"""Larger answers cost milliseconds to read: only their ends and forbidden words are looked at."""
_NO_NUMBERS: Final = (b"NaN", b"Infinity")


def judge_infer(body: bytes) -> list[int] | None:
    """The class of each row that a whole answer predicts; None if it is no table of scores, or too large to read.

    BadUpstream if the protocol does not allow the answer: no JSON, NaN or infinity in it, no outputs, an output
    with another amount of data than its shape says.
    """
    if len(body) > _READ_BYTES and not any(word in body for word in _NO_NUMBERS):
        if body.lstrip()[:1] != b"{" or body.rstrip()[-1:] != b"}":
            raise _broken(body, "its ends")
        return None
    try:
        outputs = from_json(body, allow_inf_nan=False)["outputs"]
        if not outputs:
            raise ValueError("no outputs")
        for output in outputs:
            _check_amount(output["shape"], output["data"])
        return _classes_of(outputs[0]["shape"], outputs[0]["data"])
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as broken:
        raise _broken(body, str(broken)) from broken


def _broken(body: bytes, why: str) -> BadUpstream:
    return BadUpstream(f"answer is broken ({why})", got=body[:80], expected="JSON with outputs, every number finite")


def _check_amount(shape: Any, data: Any) -> None:
    """ValueError unless flat data are as many as the shape says."""
    if type(shape) is not list or type(data) is not list:
        raise TypeError("shape and data are no lists")
    if not (data and type(data[0]) is list) and math.prod(shape) != len(data):
        raise ValueError(f"{len(data)} values of shape {shape}")


def _classes_of(shape: list[Any], data: list[Any]) -> list[int] | None:
    if len(shape) != 2 or type(shape[0]) is not int or type(shape[1]) is not int or shape[0] < 1 or shape[1] < 1:
        return None
    rows, columns = shape
    if type(data[0]) is list:
        table = data
    elif rows == 1:
        table = [data]
    else:
        table = [data[start : start + columns] for start in range(0, rows * columns, columns)]
    classes = []
    for scores in table:
        if type(scores) is not list or len(scores) != columns:
            return None
        highest = max(scores)
        if type(highest) is not float and type(highest) is not int:
            return None
        if not math.isfinite(highest):
            raise ValueError(f"score {highest}")
        classes.append(scores.index(highest))
    return classes if len(classes) == rows else None


def score_rows(body: bytes) -> list[list[float]]:
    """The first output as [rows][classes]. InvalidInput if it is no such table, BadUpstream if it is rubbish."""
    try:
        first = from_json(body, allow_inf_nan=False)["outputs"][0]
        shape, data = first["shape"], first["data"]
        rows, columns = shape if len(shape) == 2 else (0, 0)
    except (ValueError, KeyError, TypeError, IndexError) as broken:
        raise _broken(body, str(broken)) from broken
    flat = [value for entry in data for value in entry] if data and type(data[0]) is list and rows else data
    if rows < 1 or columns < 1 or not all(type(value) in (float, int) for value in flat):
        raise InvalidInput(
            "model's first output is no table of scores",
            got=f"shape {shape}",
            expected="numbers of shape [rows, classes]",
        )
    try:
        scores = [float(value) for value in flat]
    except OverflowError as large:
        raise _broken(body, str(large)) from large
    if len(scores) != rows * columns or not all(map(math.isfinite, scores)):
        raise _broken(body, f"{len(scores)} finite values of shape {shape}")
    return [scores[start : start + columns] for start in range(0, rows * columns, columns)]


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


def agreement(ours: list[int], theirs: list[int]) -> float:
    """The share of rows with the same class; a missing row agrees with nothing."""
    equal = sum(a == b for a, b in zip(ours, theirs, strict=False))
    return equal / max(len(ours), len(theirs), 1)
