"""A standby: the server of the version before, kept ready outside the route so that taking back is instant.

It answers nobody and waits for nothing: the next rollout or rollback of the model takes its place, its time
runs out, or its memory is needed.
"""

from typing import Final

import psutil

from serving.regions.deciding.rollout_state import Server
from serving.regions.registry.registry import LiveModel
from serving.regions.servers.launcher import ServerStatus

MIN_FREE_MEMORY: Final = 0.10
"""Share of the machine's memory below which standbys are given up: less, and the kernel chooses what to kill."""


def free_memory_share() -> float:
    """Memory that can be had without swapping, as a share of the machine's."""
    memory = psutil.virtual_memory()
    return float(memory.available / memory.total)


def end_of_standby(live: LiveModel, status: ServerStatus, *, now: float, free_memory: float) -> str | None:
    """Why a standby ends now, or None while it stays."""
    if live.standby_until is None or now >= live.standby_until:
        return "its time is over"
    if status.state is not Server.READY and (status.state in (Server.FAILED, Server.ABSENT) or status.degraded):
        return f"it does not run {status.note}".strip()
    if free_memory < MIN_FREE_MEMORY:
        return f"{free_memory:.0%} of the memory is free"
    return None
