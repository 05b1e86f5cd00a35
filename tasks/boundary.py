"""Where a stage meets Flyte: errors become one line, and results become pages.

On this machine a failed stage prints one line (what, got, expected) and `pyflyte run` exits with 1,
without a traceback through the engine. On a cluster a retryable error asks Flyte for a retry.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from flytekit import Deck
from flytekit.exceptions.user import FlyteRecoverableException, FlyteUserException

from serving.errors import FlightpathError
from serving.files import write_atomically
from serving.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


class StageError(click.exceptions.Exit):
    """A stage refused or failed, already reported on stderr: ends `pyflyte run` with exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(code=1)
        self.args = (message,)


def runs_locally() -> bool:
    """Whether this is no container of a Flyte execution; Flyte sets the variable in each of those."""
    return "FLYTE_INTERNAL_EXECUTION_ID" not in os.environ


def at_boundary(function: Callable[P, R]) -> Callable[P, R]:
    """Translate FlightpathError once, at the edge to Flyte."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FlightpathError as error:
            raise translated(error) from error

    return guarded


def translated(error: FlightpathError) -> Exception:
    if runs_locally():
        print(f"flightpath: {error}", file=sys.stderr, flush=True)
        return StageError(str(error))
    kind: type[Exception] = FlyteRecoverableException if error.retryable else FlyteUserException
    return kind(str(error))


def publish_deck(release_id: str, stage: str, title: str, html: str) -> Path:
    """Add a tab to the task's Flyte Deck and keep a page of its own in the state root."""
    Deck(title, html)
    path = deck_folder(release_id) / f"{stage}.html"
    page = _PAGE.format(title=f"{title} · {release_id}", body=html)
    write_atomically(path, page.encode())
    return path


def deck_folder(release_id: str) -> Path:
    return Settings().root / "decks" / release_id


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24}}
table{{border-collapse:collapse}}td,th{{padding:.3rem .8rem;border-bottom:1px solid #d8dee4;text-align:left}}
svg,img{{max-width:100%;height:auto}}</style></head>
<body><h1>{title}</h1>
{body}
</body></html>
"""
