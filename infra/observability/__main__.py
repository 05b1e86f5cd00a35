"""Writes the generated files: rules of the objectives, dashboards, and a region's prices.

python -m infra.observability write
python -m infra.observability prices us-east-1 --prices FILE --budget-usd 20000 > prices.yml
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from infra.cost.prices import load_prices
from infra.observability.files import render
from infra.observability.generated import stale, write_all
from infra.observability.prices import price_rules
from serving.errors import FlightpathError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def write() -> None:
    """Write every generated file that is not as it should be."""
    for path in write_all():
        print(path)


@app.command()
def check() -> None:
    """Exit 1 if a generated file is stale."""
    found = [str(path) for path in stale()]
    if found:
        print(f"flightpath: generated files are stale, got {found}, expected a run of `write`", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def prices(
    region: Annotated[str, typer.Argument(help="the cloud's own name, such as us-east-1")],
    prices: Annotated[Path, typer.Option(help="the price file, or a cloud's export")],
    budget_usd: Annotated[float, typer.Option(help="for one month of this region")],
) -> None:
    """Print the price rules of one region."""
    try:
        print(render(price_rules(load_prices(prices), region, budget_usd=budget_usd)), end="")
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
