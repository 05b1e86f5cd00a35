"""The promotion policy as Flyte carries it: the agents' policy, with the command line's way of reading it."""

import json
from dataclasses import dataclass
from typing import Any

from serving.errors import FlightpathError, InvalidInput
from serving.regions.deciding import policy
from tasks.boundary import translated


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy(policy.PromotionPolicy):
    """Input of `release` and `promotion`; `pyflyte run --policy '{"steps_percent": [10, 100]}'`.

    One that is all defaults stands for what suits the engine (`effective_policy`).
    """

    @classmethod
    def from_json(cls, raw: Any) -> "PromotionPolicy":
        """Called by `pyflyte run` with the text of `--policy`; an unknown field is refused, not ignored."""
        try:
            return cls(**policy.PromotionPolicy.from_json(_parsed(raw)).to_json())
        except FlightpathError as error:
            raise translated(error) from error


LANGUAGE_MODELS = PromotionPolicy(
    steps_percent=[10, 50, 100],
    min_requests=10,
    latency_margin=0.5,
    max_p95_ms=10_000.0,
    step_timeout_s=1_800.0,
    start_timeout_s=900.0,
    prepare_ahead=2,
    drain_s=60.0,
)
"""Answers take seconds, servers minutes to start on a busy machine; latency is the time to the first token."""

FEW_USERS = PromotionPolicy(
    steps_percent=[50, 100],
    min_requests=10,
    shadow_s=3_600.0,
    bake_s=3_600.0,
    step_timeout_s=7 * 86_400.0,
    on_inconclusive="hold",
    watch_s=86_400.0,
    standby_s=86_400.0,
)
"""Some requests an hour decide nothing in minutes: the candidate first answers copies, then bakes for an hour, evidence
is gathered for days, and a person promotes (`flightpath promotions promote`) where it stays inconclusive."""

REPLAYS = PromotionPolicy(bake_s=5.0, synthetic_after_s=0.0, synthetic_evidence=True, on_inconclusive="back")
"""Nobody uses the model yet: golden inputs that the agents replay are the evidence, and the report says so."""

PRESETS = {"language-models": LANGUAGE_MODELS, "few-users": FEW_USERS, "replays": REPLAYS}
"""What `--policy '{"preset": "few-users"}'` stands for."""


def effective_policy(given: policy.PromotionPolicy, engine: str) -> policy.PromotionPolicy:
    """The policy to order: a given one as it is, an all-default one by the engine that will serve."""
    return LANGUAGE_MODELS if engine == "vllm" and given == PromotionPolicy() else given


def _parsed(raw: Any) -> Any:
    """The policy as an object; `preset` names one of PRESETS, and what stands beside it changes that."""
    try:
        policy = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError as broken:
        raise InvalidInput("policy cannot be read", got=raw, expected="a JSON object") from broken
    if not isinstance(policy, dict) or "preset" not in policy:
        return policy
    changes = {name: value for name, value in policy.items() if name != "preset"}
    if policy["preset"] not in PRESETS:
        raise InvalidInput("preset of the policy is unknown", got=policy["preset"], expected=" | ".join(PRESETS))
    return {**PRESETS[policy["preset"]].to_json(), **changes}
