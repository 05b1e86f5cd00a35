"""Which region leads promotions and rollbacks, and how an operator moves the lead."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from serving.credentials import TokenFolder
from serving.regions.places.client import AgentClient
from serving.regions.places.home_client import HomeClient
from serving.regions.places.topology import load_topology
from serving.settings import Settings
from tasks.actor import present_actor

app = typer.Typer(no_args_is_help=True, help="The home region: show, move.")


@app.command()
def show() -> None:
    """The home region, and those of before."""
    topology = load_topology(Settings())
    token = TokenFolder(folder=topology.token_folder).read("operator")
    _show(asyncio.run(HomeClient(topology, token).get_home()))


@app.command()
def move(
    region: Annotated[str, typer.Argument(help="the region that is to lead")],
    reason: Annotated[str, typer.Option(help="why, for the journal")],
    force: Annotated[bool, typer.Option(help="leave a home region behind that does not answer")] = False,
) -> None:
    """Let another region lead: from then on all regions refuse the orders of the one before."""
    topology = load_topology(Settings())
    token = TokenFolder(folder=topology.token_folder).read("operator")
    agent = AgentClient(topology.region(region).agent_url, token, timeout_s=60.0, on_behalf_of=present_actor())
    _show(asyncio.run(agent.take_home(reason=reason, force=force)))


def _show(known: dict[str, Any]) -> None:
    print(f"{known['home']} leads, at {known['url']}")
    for entry in reversed(known["log"]):
        since = datetime.fromtimestamp(entry["at"], UTC).isoformat(timespec="seconds")
        print(f"epoch {entry['number']}  {entry['home']}  since {since}  by {entry['actor']}: {entry['reason']}")
