"""Order a rollback from the agents and follow it: to the version before, or to a named one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.errors import InvalidInput, PermanentError, RetryableError, Unreachable
from serving.regions.places.client import AgentClient
from tasks.progress import announce

_POLL_S = 0.2


@dataclass(kw_only=True)
class RegionRollback:
    region: str
    state: str
    """queued | starting | switching | live | failed"""
    reason: str
    release: str
    version: int
    """What the region serves at the end of it."""
    previous_version: int
    """What it served before."""
    warm: bool
    """Whether the server of that version was still standing by."""


@dataclass(kw_only=True)
class RollbackOutcome:
    rollback_id: str
    model: str
    state: str
    """live | failed | superseded"""
    seconds: float
    """From the order until every region serves it."""
    regions: list[RegionRollback] = field(default_factory=list)


def make_rollback_order(*, model: str, to_version: int, regions: list[str], reason: str) -> dict[str, Any]:
    """Body of `PUT /v1/rollbacks/{id}` (docs/api.md); version 0 means the one before the live one."""
    if to_version < 0:
        raise InvalidInput("to_version is out of range", got=to_version, expected=">= 0; 0 is the version before")
    return {
        "schema_version": 1,
        "model": model,
        "to": {"version": to_version} if to_version else None,
        "regions": regions or None,
        "reason": reason or "asked for",
    }


async def roll_back(
    agents: Sequence[AgentClient],
    rollback_id: str,
    order: dict[str, Any],
    *,
    timeout_s: float,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> RollbackOutcome:
    """Order it at the first agent that answers and follow it to the end; it is finished even if this process dies.

    Raises:
        PermanentError: it was refused, or a region could not go back.
        RetryableError: it had not ended after `timeout_s`.
    """
    began = time.monotonic()
    agent, document = await _order(agents, rollback_id, order)
    shown = ""
    while not document["finished_at"]:
        shown = _show(document, shown)
        if time.monotonic() - began > timeout_s:
            raise RetryableError(f"rollback {rollback_id} has not ended", got=shown, expected=f"within {timeout_s:g} s")
        await pause(_POLL_S)
        document = await _ask(agent, rollback_id, document)
    _show(document, shown)
    return _outcome(document)


async def _order(
    agents: Sequence[AgentClient], rollback_id: str, order: dict[str, Any]
) -> tuple[AgentClient, dict[str, Any]]:
    """Who took it, and its state."""
    *others, last = agents
    for agent in others:
        try:
            return agent, await agent.put_rollback(rollback_id, order)
        except Unreachable as silent:
            announce("rollback", f"{silent}; ordered at {last.base_url}")
    return last, await last.put_rollback(rollback_id, order)


async def _ask(agent: AgentClient, rollback_id: str, known: dict[str, Any]) -> dict[str, Any]:
    """The present state, or the last known one while the agent is away."""
    try:
        return await agent.get_rollback(rollback_id)
    except RetryableError:
        return known


def _show(document: dict[str, Any], shown: str) -> str:
    line = ", ".join(f"{region['region']} {region['state']}" for region in document["regions"])
    if line != shown:
        announce("rollback", line)
    return line


def _outcome(document: dict[str, Any]) -> RollbackOutcome:
    if document["state"] != "live":
        failed = [f"{region['region']}: {region['reason']}" for region in document["regions"] if region["reason"]]
        why = "; ".join(failed) or document["failure"] or document["state"]
        raise PermanentError(f"rollback {document['id']} is {document['state']}", got=why, expected="live everywhere")
    return RollbackOutcome(
        rollback_id=document["id"],
        model=document["model"],
        state=document["state"],
        seconds=max(0.0, document["finished_at"] - document["ordered_at"]),
        regions=[_region(region) for region in document["regions"]],
    )


def _region(raw: dict[str, Any]) -> RegionRollback:
    return RegionRollback(
        region=raw["region"],
        state=raw["state"],
        reason=raw["reason"] or "",
        release=raw["release"] or "",
        version=int(raw["version"] or 0),
        previous_version=int(raw["previous_version"] or 0),
        warm=bool(raw["warm"]),
    )
