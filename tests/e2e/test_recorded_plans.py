"""The recorded plans are what Terraform plans now, against moto; and what it plans breaks no rule."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.cost.plan import cost_of_plan
from infra.cost.prices import load_prices
from infra.policy import check, load_policy
from tests.fakes.recorded_plans.recording import REGIONS, planned_now, recorded
from tests.fakes.terraform_world import INFRA, PROJECT, needs_provider

pytestmark = needs_provider()

AGAIN = "run: python -m tests.fakes.recorded_plans.recording"


def test_recorded_plans_are_current_and_break_no_rule(tmp_path: Path) -> None:
    prices = load_prices(PROJECT / "examples" / "infra" / "prices.json")
    seen = []
    for region, document in planned_now(tmp_path):
        policy = load_policy(INFRA / "environments" / region / "policy.yaml")
        assert check(document, policy, prices, today=datetime.now(UTC).date()).breaches == ()
        assert cost_of_plan(document, prices) == cost_of_plan(recorded(region), prices), AGAIN
        assert _addresses(document) == _addresses(recorded(region)), AGAIN
        seen.append(region)
    assert tuple(seen) == REGIONS


def _addresses(document: dict[str, Any]) -> list[str]:
    return sorted(raw["address"] for raw in document["resource_changes"])
