"""The command line: `flightpath up | down | status | demo | promotions | home | tokens | keys`."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from flightpath import credentials, home, promotions
from serving.errors import FlightpathError
from serving.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(promotions.app, name="promotions")
app.add_typer(home.app, name="home")
app.add_typer(credentials.tokens, name="tokens")
app.add_typer(credentials.keys, name="keys")


def _run(action: Callable[[], object]) -> None:
    """One line and exit code 1 for whatever a user can mend."""
    try:
        action()
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _console() -> Console:
    """The terminal's width; in a pipe or a log there is none, and tables get room."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def _say(line: str) -> None:
    print(line, flush=True)


@app.command()
def up() -> None:
    """Start the three local regions, or replace what runs older code."""
    from flightpath.local import regions

    _run(lambda: regions.up(Settings(), _say))


@app.command()
def down() -> None:
    """End supervisor, agents, gateways and model servers of this state root."""
    from flightpath.local import regions

    _run(lambda: regions.down(Settings(), _say))


@app.command()
def status() -> None:
    """What each region runs, with which weights and health."""
    from flightpath.local.status import show_status

    _run(lambda: asyncio.run(show_status(Settings(), _console())))


@app.command()
def demo(
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="a recipe's name, or package.module:function; several are released together"),
    ] = None,
    release_id: Annotated[str, typer.Option(help="by default <recipe>-<n>, the next number each time")] = "",
    seed: Annotated[int | None, typer.Option(help="by default the release's number")] = None,
    region: Annotated[list[str] | None, typer.Option(help="may be given several times; by default all three")] = None,
    rate: Annotated[
        float, typer.Option(min=0, max=500, help="requests per second and region; 0: 40 images, 0.5 texts")
    ] = 0.0,
    policy: Annotated[
        str, typer.Option(help='PromotionPolicy as JSON or a file of it; {"preset": "few-users"} too')
    ] = "",
) -> None:
    """Release the next version to three local regions under real traffic."""
    from flightpath.local.demo import DemoOptions, run_demo

    chosen = {name: values for name, values in (("recipes", recipe), ("regions", region)) if values}
    options = DemoOptions(release_id=release_id, seed=seed, rate_per_s=rate, policy=policy, **chosen)
    signal.signal(signal.SIGTERM, _interrupt)
    _run(lambda: run_demo(Settings(), options, _console()))


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry of the `flightpath` script."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        # A recipe of the user's own is found where the user is.
        sys.path.append(os.getcwd())
    try:
        app()
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        raise SystemExit(1) from error
