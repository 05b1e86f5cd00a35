"""Promotions in the home region's registry, each change with the journal entries that tell of it."""

import logging
from typing import Any

from serving.errors import NotFound
from serving.regions.deciding.promotion_state import RUNNING, Promotion, read_promotion
from serving.regions.registry.registry import Event, Registry

logger = logging.getLogger(__name__)


class PromotionStore:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, id: str) -> Promotion | None:
        try:
            return self.read(id)
        except NotFound:
            return None

    def read(self, id: str) -> Promotion:
        """Raises NotFound."""
        return read_promotion(self._registry.promotion(id))

    def newest(self, model: str | None, *, limit: int = 100) -> list[Promotion]:
        return [read_promotion(document) for document in self._registry.promotions(model=model, limit=limit)]

    def save(
        self, promotion: Promotion, messages: list[str], part: dict[str, Any] | None = None, *, actor: str | None = None
    ) -> None:
        """Commit a new state; `actor` is whoever ordered this change, if a person or a program did."""
        detail = {"state": promotion.state, "reason": promotion.reason, "region": None, **_part_detail(part)}
        if actor is not None:
            detail["actor"] = actor
        events = [Event(kind="promotion", subject=promotion.id, message=m, detail=detail) for m in messages]
        running = promotion.state == RUNNING
        self._registry.save_promotion(promotion.id, promotion.to_json(), running=running, events=events)
        for message in messages:
            logger.info("promotion %s: %s", promotion.id, message)


def _part_detail(part: dict[str, Any] | None) -> dict[str, Any]:
    if part is None:
        return {}
    finished = [step for step in part["steps"] if step["finished_at"] is not None]
    known = {"region": part["region"], "region_state": part["state"], "percent": part["percent"]}
    return {**known, "region_reason": part["reason"], "step": finished[-1] if finished else None}
