"""What the demo's promotions are judged by: a few users on one busy machine decide nothing at production's margins.

Its margins are wide, replayed golden inputs count as evidence, and what stays inconclusive goes on. The demo's report
says so; a real promotion's defaults are those of `PromotionPolicy`.
"""

from dataclasses import replace
from typing import Final

from serving.regions.deciding.policy import PromotionPolicy
from tasks.promotion.policy import LANGUAGE_MODELS

CLASSIFIERS: Final = PromotionPolicy(
    bake_s=1.0,
    error_margin=0.05,
    refusal_margin=0.05,
    latency_margin=1.0,
    max_error_rate=0.05,
    max_p95_ms=1_000.0,
    synthetic_after_s=3.0,
    synthetic_evidence=True,
    step_timeout_s=60.0,
    on_inconclusive="go",
    watch_s=10.0,
)
LANGUAGE: Final = replace(
    PromotionPolicy(**LANGUAGE_MODELS.to_json()),
    bake_s=1.0,
    error_margin=0.10,
    refusal_margin=0.10,
    latency_margin=2.0,
    max_error_rate=0.10,
    max_p95_ms=20_000.0,
    synthetic_after_s=3.0,
    synthetic_evidence=True,
    step_timeout_s=60.0,
    on_inconclusive="go",
    watch_s=10.0,
)


def demo_policy(engine: str) -> PromotionPolicy:
    return LANGUAGE if engine == "vllm" else CLASSIFIERS
