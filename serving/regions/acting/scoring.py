"""Scores of mirrored completions: pairs from the gateway, put to the scorer that the policy names."""

import logging
from typing import Any

from serving.errors import FlightpathError
from serving.regions.deciding.completion_score import greedy_agreement
from serving.regions.servers.scorer import ScorerProcess
from serving.regions.traffic.gateway_traffic import TrafficBackend
from serving.releases import Release

logger = logging.getLogger(__name__)


class Scoring:
    """One region's scorers. Use `close` at the end."""

    def __init__(self, traffic: TrafficBackend, *, timeout_s: float) -> None:
        self._traffic = traffic
        self._timeout_s = timeout_s
        self._seen: dict[str, tuple[str, int]] = {}
        self._scored: dict[str, str] = {}
        self._scorers: dict[str, ScorerProcess] = {}

    async def scores(self, release: Release, scorer: str) -> list[float]:
        """Of the pairs that came since the last call; a pair that cannot be scored says nothing.

        The first call for a release only lets go of what is there: it was another candidate's. Raises what the gateway
        raises.
        """
        model = release.model
        boot_id, after = self._seen.get(model, ("", 0))
        pairs = await self._traffic.pairs(model, after=after)
        if pairs.boot_id != boot_id and after:
            # Another gateway counts from 1 again.
            pairs = await self._traffic.pairs(model, after=0)
        known, scores = self._scored.get(model) == release.id, []
        self._scored[model] = release.id
        for pair in pairs.pairs if known else []:
            score = await self._score(pair, scorer)
            if score is not None:
                scores.append(score)
        last = max((int(pair["seq"]) for pair in pairs.pairs), default=after if pairs.boot_id == boot_id else 0)
        self._seen[model] = (pairs.boot_id, last)
        return scores

    async def _score(self, pair: dict[str, Any], scorer: str) -> float | None:
        if not scorer:
            return greedy_agreement(str(pair["candidate"]), str(pair["live"]))
        process = self._scorers.setdefault(scorer, ScorerProcess(scorer, timeout_s=self._timeout_s))
        try:
            return await process.score({name: pair[name] for name in ("request", "candidate", "live")})
        except FlightpathError as failure:
            logger.warning("%s", failure)
            return None

    async def close(self) -> None:
        for process in self._scorers.values():
            await process.close()
