"""What every region says of itself, in one table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from serving.credentials import TokenFolder
from serving.errors import RetryableError
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import load_topology
from serving.settings import Settings


async def show_status(settings: Settings, console: Console) -> None:
    """Print one row per region and model; raises RetryableError when no region answers."""
    topology = load_topology(settings)
    token = TokenFolder(folder=topology.token_folder).read("promoter")
    table = Table(title="Regions", title_justify="left")
    for column in ("region", "state", "model", "live", "server", "weights", "gateway"):
        table.add_column(column, overflow="fold")
    answered = 0
    for region in topology.regions:
        try:
            state = await AgentClient(region.agent_url, token).region()
        except RetryableError as away:
            table.add_row(region.name, f"no answer: {away.what}", "", "", "", "", region.gateway_url)
            continue
        answered += 1
        for row in _rows(state):
            table.add_row(region.name, str(state["state"]), *row, region.gateway_url)
    console.print(table)
    if not answered:
        raise RetryableError("no region answers", got="0 agents", expected="`flightpath up` first")


def _rows(state: dict[str, Any]) -> list[list[str]]:
    """Model, live version, server and weights of each model (docs/api.md, `GET /v1/region`)."""
    rows = []
    for model in state["models"]:
        live = "none" if model["version"] is None else f"v{model['version']} ({model['release']})"
        if model["standby"]:
            live += f", {model['standby']['release']} stands by"
        server = (model["server"] or {}).get("state", "none")
        weights = ", ".join(f"{name} {weight} %" for name, weight in model["weights"].items() if weight)
        rows.append([str(model["model"]), live, str(server), weights or "none"])
    for under_way in (*state["rollouts"], *state["rollbacks"]):
        rows.append([f"under way: {under_way}", "", "", ""])
    return rows or [["none", "", "", ""]]
