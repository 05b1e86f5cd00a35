"""Pages of plans and drift: everything that was found is on them, and nothing of it is taken for HTML."""

from datetime import UTC, datetime
from typing import Any

import pytest

from infra.changelog import Change
from infra.drift import Cause, Drift, DriftAttribution
from infra.driver.plan import AttributeChange
from tasks.clusters.drifting import as_found, require_clean
from tasks.clusters.errors import Drifted
from tasks.clusters.outcomes import DriftFound, DriftRow, RegionPlan
from tasks.clusters.pages import drift_page, plan_page


def plan(**more: list[str]) -> RegionPlan:
    counts = {"adds": 3, "changes": 2, "destroys": 1, "replaces": 4}
    actions = ['create module.x.aws_subnet.a["<zone>"]']
    cost = {"least_usd": 2136.4, "most_usd": 86024.0}
    return RegionPlan(region="us-east", digest="d" * 64, actions=actions, **counts, **cost, **more)


def test_a_plans_page_shows_counts_cost_digest_and_every_action() -> None:
    page = plan_page(plan())
    for text in ("3 to create", "4 to replace", "2,136 to 86,024 USD", "d" * 64, "&lt;zone&gt;"):
        assert text in page
    assert "<zone>" not in page
    assert "Breaches" not in page


def test_breaches_waivers_and_stale_waivers_have_a_list_each() -> None:
    page = plan_page(plan(breaches=["encryption at a"], waived=["tags at b"], stale_waivers=["quota for c"]))
    assert "this plan is refused (1)" in page
    assert all(text in page for text in ("encryption at a", "tags at b", "quota for c"))


def test_a_plan_whose_parts_have_no_price_has_no_cost() -> None:
    unpriced = plan(breaches=["cost-ceiling at plan"])
    unpriced.least_usd = unpriced.most_usd = 0.0
    assert "not known" in plan_page(unpriced)


def test_drift_shows_cause_attributes_remedy_and_who() -> None:
    rows = [
        DriftRow(address="a.b", cause="changed", remedy="update", attributes=["tags: <1> -> 2"], who=["arn:x"]),
        DriftRow(address="c.d", cause="deleted", remedy="create", attributes=[]),
    ]
    found = DriftFound(region="us-east", has_drift=True, is_clean=False, rows=rows, log_problem="throttled")
    page = drift_page(found)
    for text in ("tags: &lt;1&gt; -&gt; 2", "arn:x", "not known", "somebody deleted it", "did not tell who: throttled"):
        assert text in page
    assert "the configuration was changed and not applied" not in page


def test_who_changed_it_is_told_with_call_time_place_and_program() -> None:
    made: dict[str, Any] = {
        "id": "1",
        "who": "arn:aws:iam::1:user/alice",
        "what": "PutBucketTagging",
        "at": datetime(2026, 11, 20, tzinfo=UTC),
    }
    by_hand = Change(**made, address="203.0.113.9", agent="aws-cli/2.15")
    elsewhere = Change(**{**made, "who": "arn:ci"}, agent="HashiCorp Terraform/1.11.0")
    drift = Drift(
        address="aws_s3_bucket.a",
        type="aws_s3_bucket",
        cause=Cause.CHANGED,
        attributes=(AttributeChange(name="tags", before={"a": "x" * 500}, after=None),),
        remedy="update",
        changes=(by_hand, elsewhere),
    )
    found = as_found("us-east", DriftAttribution(drifts=(drift,)))
    (row,) = found.rows
    assert row.who == [
        "arn:aws:iam::1:user/alice: PutBucketTagging at 2026-11-20 00:00 UTC from 203.0.113.9",
        "arn:ci: PutBucketTagging at 2026-11-20 00:00 UTC, by Terraform",
    ]
    assert len(row.attributes[0]) < 300
    with pytest.raises(Drifted, match=r"aws_s3_bucket\.a changed \(arn:aws:iam::1:user/alice: PutBucketTagging"):
        require_clean(found)


def test_no_drift_says_so() -> None:
    assert "No drift" in drift_page(DriftFound(region="us-east", has_drift=False, is_clean=True))
