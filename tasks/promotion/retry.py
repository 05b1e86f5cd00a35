"""A promotion that failed, ordered again and followed to its end."""

import asyncio
from typing import Any

from serving.errors import RetryableError
from serving.regions.places.client import AgentClient
from tasks.promotion.outcome import FINAL_STATES, PromotionOutcome, outcome_from_json
from tasks.promotion.watch import PromotionWatch

_POLL_S = 0.5


async def follow_retry(agent: AgentClient, promotion_id: str) -> PromotionOutcome:
    """The outcome of the next attempt.

    Raises NotFound or Conflict, as the agent answers to a promotion that runs, went live or is not known.
    """
    watch = PromotionWatch()
    promotion = await agent.retry_promotion(promotion_id)
    while promotion["state"] not in FINAL_STATES:
        watch.show(promotion)
        await asyncio.sleep(_POLL_S)
        promotion = await _ask(agent, promotion)
    watch.show(promotion)
    return outcome_from_json(promotion)


async def _ask(agent: AgentClient, before: dict[str, Any]) -> dict[str, Any]:
    """The agent may be starting again; it owns the promotion and goes on from its registry."""
    try:
        return await agent.get_promotion(before["id"])
    except RetryableError:
        return before
