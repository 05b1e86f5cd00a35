"""What a person does with a promotion: look at it, pause, resume, promote, abort, retry."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serving.credentials import TokenFolder
from serving.regions.places.client import AgentClient
from serving.regions.places.home_client import HomeClient
from serving.regions.places.topology import load_topology
from serving.settings import Settings
from tasks.actor import present_actor

app = typer.Typer(no_args_is_help=True, help="Promotions: list, show, pause, resume, promote, abort, retry.")
Call = Callable[[AgentClient], Awaitable[dict[str, Any]]]
Id = Annotated[str, typer.Argument(help="the promotion's id: the release's, or what `retry` answered")]


def _home(role: str) -> AgentClient:
    topology = load_topology(Settings())
    token = TokenFolder(folder=topology.token_folder).read(role)
    return HomeClient(topology, token, on_behalf_of=present_actor())


def _ask(call: Call, *, role: str = "promoter") -> None:
    _show(Console(width=None if Console().is_terminal else 160), asyncio.run(_answer(call, role)))


async def _answer(call: Call, role: str) -> dict[str, Any]:
    return await call(_home(role))


def _show(console: Console, promotion: dict[str, Any]) -> None:
    """One promotion with the gates of each region's last step."""
    facts = [promotion["state"], f"attempt {promotion['attempt']}", f"ordered by {promotion['actor'] or 'unknown'}"]
    facts += ["paused"] if promotion["paused"] else []
    facts += [f"promoted by {promotion['promoted_by']}"] if promotion["promoted_by"] else []
    facts += ["watched"] if promotion["watching"] else []
    table = Table(title=f"{promotion['id']}: {', '.join(facts)}", title_justify="left")
    for column in ("region", "state", "gate", "status", "measured", "allowed", "note"):
        table.add_column(column, overflow="fold")
    for region in promotion["regions"]:
        percent = "" if region["percent"] is None else f" {region['percent']} %"
        judged = [step for step in region["steps"] if step["gates"]]
        gates = judged[-1]["gates"] if judged else []
        waiting = f"\nholding: {region['waiting_for']}" if region["waiting_for"] else ""
        state = f"{region['state']}{percent}{waiting}"
        table.add_row(region["region"], state, "", "", "", "", region["reason"] or "")
        for gate in gates:
            figures = [_figure(gate[name], gate["unit"]) for name in ("measured", "allowed")]
            table.add_row("", "", gate["gate"], gate["status"], *figures, gate["note"])
    console.print(table)
    if promotion["reason"]:
        console.print(f"reason: {promotion['reason']}", highlight=False, markup=False)


def _figure(value: float | None, unit: str) -> str:
    return "none" if value is None else f"{value:.4g} {unit}"


@app.command("list")
def list_promotions(model: Annotated[str | None, typer.Option(help="of this model alone")] = None) -> None:
    """The newest promotions, one line each."""
    for promotion in asyncio.run(_list(model)):
        reason = f": {promotion['reason']}" if promotion["reason"] else ""
        print(f"{promotion['id']}  {promotion['model']} v{promotion['version']}  {promotion['state']}{reason}")


async def _list(model: str | None) -> list[dict[str, Any]]:
    return await _home("promoter").promotions(model)


@app.command()
def show(id: Id) -> None:
    """What each region does, and what its gates say."""
    _ask(lambda agent: agent.get_promotion(id))


@app.command()
def pause(id: Id) -> None:
    """Let the present weights stay; a gate that fails takes them back all the same."""
    _ask(lambda agent: agent.pause_promotion(id))


@app.command()
def resume(id: Id) -> None:
    """Go on after a pause."""
    _ask(lambda agent: agent.resume_promotion(id))


@app.command()
def promote(id: Id) -> None:
    """Wait for no more evidence, in any region; a gate that fails still counts. Needs the operator's token."""
    _ask(lambda agent: agent.promote_now(id), role="operator")


@app.command()
def abort(id: Id) -> None:
    """Take the promotion back."""
    _ask(lambda agent: agent.abort_promotion(id))


@app.command()
def retry(id: Id) -> None:
    """Order one that was taken back once more, under an id of its own: no training, no new release."""
    _ask(lambda agent: agent.retry_promotion(id))
