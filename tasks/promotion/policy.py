"""The promotion policy as Flyte carries it: the agents' policy, with the command line's way of reading it."""

import json
from dataclasses import dataclass
from typing import Any

from serving.errors import FlightpathError, InvalidInput
from serving.regions import policy
from tasks.boundary import translated


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy(policy.PromotionPolicy):
    """Input of `release` and `promote`; `pyflyte run --policy '{"steps_percent": [10, 100]}'`."""

    @classmethod
    def from_json(cls, raw: Any) -> "PromotionPolicy":
        """Called by `pyflyte run` with the text of `--policy`; an unknown field is refused, not ignored."""
        try:
            return cls(**policy.PromotionPolicy.from_json(_parsed(raw)).to_json())
        except FlightpathError as error:
            raise translated(error) from error


def _parsed(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError as broken:
        raise InvalidInput("policy cannot be read", got=raw, expected="a JSON object") from broken
