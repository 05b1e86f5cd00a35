"""Writes the generated files: rules of the objectives, dashboards, prices.

python -m infra.observability write
python -m infra.observability prices --prices FILE --region us-east-1 --budget-usd 20000 --output FILE
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.observability.generated import stale, write_all

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def write() -> None:
    """Write every generated file that is not as it should be."""
    for path in write_all():
        print(path)


@app.command()
def check() -> None:
    """Exit 1 if a generated file is stale."""
    if found := stale():
        print(f"flightpath: generated files are stale, got {[str(path) for path in found]}, expected a write", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
