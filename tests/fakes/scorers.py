"""Scorers of completions as users write them: kind ones, slow ones, broken ones."""

import os
import sys
import time
from typing import Any


def length_ratio(request: dict[str, Any], candidate: str, live: str) -> float:
    """How alike two answers are in length; it prints, as users' code does."""
    print("scoring", request["prompt"])
    return min(len(candidate), len(live)) / max(len(candidate), len(live), 1)


def hangs(request: dict[str, Any], candidate: str, live: str) -> float:
    if candidate == "hang":
        time.sleep(60)
    return 1.0


def dies(request: dict[str, Any], candidate: str, live: str) -> float:
    if candidate == "die":
        os._exit(3)
    return 1.0


def lies(request: dict[str, Any], candidate: str, live: str) -> float:
    return float(candidate)


def raises(request: dict[str, Any], candidate: str, live: str) -> float:
    print("about to fail", file=sys.stderr)
    raise ValueError("no score for this")
