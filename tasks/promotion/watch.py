"""Turns a promotion's states into progress: a line for each change, none for the polls between."""

from typing import Any

from tasks.progress import announce


class PromotionWatch:
    """Remembers what it has announced."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], str] = {}

    def show(self, promotion: dict[str, Any]) -> None:
        for region in promotion["regions"]:
            key = (promotion["id"], region["region"])
            line = _describe(region)
            if self._shown.get(key) != line:
                self._shown[key] = line
                announce("promotion", f"{region['region']} {line}", **_figures(region))

    def line(self, promotion: dict[str, Any]) -> str:
        return ", ".join(f"{region['region']} {_describe(region)}" for region in promotion["regions"])


def _describe(region: dict[str, Any]) -> str:
    state = str(region["state"])
    if state == "canary":
        waiting = f", holding: {region['waiting_for']}" if region.get("waiting_for") else ""
        paused = ", paused" if region.get("paused") else ""
        return f"canary({region['percent']} %){waiting}{paused}"
    return f"{state}: {region['reason']}" if region["reason"] else state


def _figures(region: dict[str, Any]) -> dict[str, float]:
    """What the last judged step measured."""
    judged = [step for step in region["steps"] if step["finished_at"]]
    if not judged:
        return {}
    return {gate["gate"]: gate["measured"] for gate in judged[-1]["gates"] if gate["measured"] is not None}
