"""Which files are generated, and from what; checked in so that nobody needs Python to apply them."""

from collections.abc import Iterator
from pathlib import Path

from infra.observability.dashboards import render_board
from infra.observability.files import FOLDER, render
from infra.observability.panels import BOARDS
from infra.observability.slo import rule_file


def contents() -> Iterator[tuple[Path, str]]:
    """Every generated file and what it should hold."""
    yield FOLDER / "rules/region/slo.yml", render(rule_file("region"))
    yield FOLDER / "rules/global/slo.yml", render(rule_file("global"))
    for board in BOARDS:
        yield FOLDER / f"dashboards/{board.uid}.json", render_board(board)


def stale() -> list[Path]:
    return [path for path, text in contents() if not path.exists() or path.read_text() != text]


def write_all() -> list[Path]:
    """Write what is stale; returns what was written."""
    written = []
    for path, text in contents():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            written.append(path)
    return written
