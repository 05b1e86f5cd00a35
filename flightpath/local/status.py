"""What every region says of itself, in one table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from serving.credentials import TokenFolder
from serving.errors import RetryableError
from serving.regions.client import AgentClient
from serving.regions.topology import load_topology
from serving.settings import Settings


async def show_status(settings: Settings, console: Console) -> None:
    """Print one row per region and model; raises RetryableError when no region answers."""
    topology = load_topology(settings)
    token = TokenFolder(folder=topology.token_folder).read("promoter")
    table = Table(title="Regions", title_justify="left")
    for column in ("region", "agent", "model", "live", "previous", "rollout", "gateway"):
        table.add_column(column)
    answered = 0
    for region in topology.regions:
        try:
            state = await AgentClient(region.agent_url, token).region()
        except RetryableError as away:
            table.add_row(region.name, f"no answer ({away.what})", "", "", "", "", region.gateway_url)
            continue
        answered += 1
        for row in _rows(state):
            table.add_row(region.name, "ready", *row, region.gateway_url)
    console.print(table)
    if not answered:
        raise RetryableError("no region answers", got="0 agents", expected="`flightpath up` first")


def _rows(state: dict[str, Any]) -> list[list[str]]:
    models = state.get("models") or []
    if not models:
        return [["none", "", "", ""]]
    return [
        [
            str(model["model"]),
            str(model.get("live_version") or "none"),
            str(model.get("previous_version") or "none"),
            str(model.get("rollout") or "none"),
        ]
        for model in models
    ]
