"""Plans a region and judges the plan; approves it; applies exactly what was approved.

Steps of a workflow run in pods of their own, and a plan file is a secret that should lie in no store between them. So
no file travels: the digest of what the plan changes does. The step that applies plans again, and goes on only if its
own saved plan has the digest that was approved.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infra.cost.errors import UnknownPrice
from infra.cost.plan import cost_of_plan
from infra.cost.prices import PriceBook, load_prices
from infra.driver.redaction import mask
from infra.policy import PolicyBreached, Verdict, check
from infra.terraform import Plan, Progress
from tasks.actor import present_actor
from tasks.clusters import environments
from tasks.clusters.environments import Environment
from tasks.clusters.errors import NotApproved, PlanChanged
from tasks.clusters.outcomes import AppliedRegion, RegionPlan
from tasks.clusters.settings import ClusterSettings
from tasks.progress import announce

_SHORTEST_APPROVAL: Final = 12
_SHOWN_ACTIONS: Final = 5
_TOLD: Final = frozenset({"apply_start", "apply_complete", "apply_errored", "apply_progress"})


def plan_region(
    name: str, variables: Mapping[str, str], backend: Mapping[str, str], settings: ClusterSettings
) -> RegionPlan:
    """Nothing is kept on the disk. Breaches are in the answer: `require_policy` raises them."""
    environment = environments.open_environment(name, settings)
    driver = environment.driver(backend, settings)
    plan = driver.plan(environments.values(variables, settings))
    plan.discard()
    return _described(environment, plan, variables, backend, settings)


def require_policy(planned: RegionPlan) -> None:
    _refuse_breaches(planned.region, planned.breaches)


def require_approval(planned: RegionPlan, approval: str) -> None:
    """A plan that changes nothing needs none."""
    given = approval.strip().lower()
    if not planned.has_changes or (len(given) >= _SHORTEST_APPROVAL and planned.digest.startswith(given)):
        return
    raise NotApproved(
        f"the plan of {planned.region} is not approved; it would {_summary(planned)}",
        got=repr(approval) if approval else "no approval",
        expected=f"its digest {planned.digest[:_SHORTEST_APPROVAL]} or more of it, of the plan as it is now",
    )


def apply_region(planned: RegionPlan, approval: str, settings: ClusterSettings) -> AppliedRegion:
    """Applies the approved changes; after a partial apply the same order plans what is left, under a new digest."""
    require_policy(planned)
    require_approval(planned, approval)
    environment = environments.open_environment(planned.region, settings)
    driver = environment.driver(planned.backend, settings)
    began = time.monotonic()
    plan = driver.plan(environments.values(planned.variables, settings))
    try:
        _require_same(environment, plan, planned, settings)
        done = driver.apply(plan, on_progress=_tell).done if plan.has_changes else ()
    finally:
        plan.discard()
    return AppliedRegion(
        region=planned.region,
        digest=planned.digest,
        done=list(done),
        seconds=time.monotonic() - began,
        outputs=sorted(driver.output()),
        backend=dict(planned.backend),
        approved_by=present_actor(),
    )


def digest_of(document: Mapping[str, Any]) -> str:
    """Of every change and every output, with sensitive values masked: a digest is shown to people."""
    changes = [_masked(raw) for raw in document.get("resource_changes", ()) if _is_change(raw)]
    outputs = {name: _masked({"change": raw}) for name, raw in document.get("output_changes", {}).items()}
    outputs = {name: raw for name, raw in outputs.items() if raw["actions"] != ["no-op"]}
    text = json.dumps([changes, outputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _described(
    environment: Environment,
    plan: Plan,
    variables: Mapping[str, str],
    backend: Mapping[str, str],
    settings: ClusterSettings,
) -> RegionPlan:
    prices, summary = load_prices(settings.prices), plan.summary
    verdict = _judge(environment, plan, prices)
    least_usd, most_usd = _cost(plan, prices)
    return RegionPlan(
        region=environment.name,
        digest=digest_of(plan.document),
        adds=summary.adds,
        changes=summary.changes,
        destroys=summary.destroys,
        replaces=summary.replaces,
        actions=[f"{change.action} {change.address}" for change in plan.changes],
        least_usd=least_usd,
        most_usd=most_usd,
        breaches=[str(breach) for breach in verdict.breaches],
        waived=[f"{breach} (waived until {waiver.expires}: {waiver.reason})" for breach, waiver in verdict.waived],
        stale_waivers=[f"{waiver.rule} for {waiver.resource}" for waiver in (*verdict.expired, *verdict.unused)],
        variables=dict(variables),
        backend=dict(backend),
        has_changes=plan.has_changes,
    )


def _cost(plan: Plan, prices: PriceBook) -> tuple[float, float]:
    """Zero where something has no price: that is a breach already, so it is never shown as a cost."""
    try:
        cost = cost_of_plan(plan.document, prices)
    except UnknownPrice:
        return 0.0, 0.0
    return cost.least_usd, cost.most_usd


def _judge(environment: Environment, plan: Plan, prices: PriceBook) -> Verdict:
    today = datetime.now(UTC).date()
    return check(plan.document, environment.policy, prices, environment.waivers, today=today)


def _refuse_breaches(region: str, breaches: Sequence[str]) -> None:
    if breaches:
        rules = "rule" if len(breaches) == 1 else "rules"
        raise PolicyBreached(f"the plan of {region} breaks {len(breaches)} {rules}: {'; '.join(breaches)}")


def _require_same(environment: Environment, plan: Plan, planned: RegionPlan, settings: ClusterSettings) -> None:
    """The policy too is asked again: a waiver may have ended since."""
    if digest_of(plan.document) != planned.digest:
        now = {f"{change.action} {change.address}" for change in plan.changes}
        differs = sorted(now ^ set(planned.actions)) or ["values alone"]
        raise PlanChanged(
            f"the plan of {planned.region} is another one than was approved; plan and approve again",
            got=f"{digest_of(plan.document)[:_SHORTEST_APPROVAL]} ({_short(differs)} differ)",
            expected=planned.digest[:_SHORTEST_APPROVAL],
        )
    verdict = _judge(environment, plan, load_prices(settings.prices))
    _refuse_breaches(planned.region, [str(breach) for breach in verdict.breaches])


def _is_change(raw: Mapping[str, Any]) -> bool:
    return raw["change"]["actions"] not in (["no-op"], ["read"]) or "previous_address" in raw


def _masked(raw: Mapping[str, Any]) -> dict[str, Any]:
    change = raw["change"]
    return {
        "address": raw.get("address", ""),
        "actions": change["actions"],
        "before": mask(change.get("before"), change.get("before_sensitive")),
        "after": mask(change.get("after"), change.get("after_sensitive")),
        "after_unknown": change.get("after_unknown"),
    }


def _tell(event: Progress) -> None:
    if event.kind in _TOLD:
        announce("apply", event.message)


def _summary(planned: RegionPlan) -> str:
    counts = (("create", planned.adds), ("change", planned.changes), ("replace", planned.replaces))
    said = [f"{verb} {count}" for verb, count in (*counts, ("destroy", planned.destroys)) if count]
    return f"{', '.join(said) or 'change outputs'} ({_short(planned.actions)})"


def _short(items: list[str]) -> str:
    more = len(items) - _SHOWN_ACTIONS
    return ", ".join(items[:_SHOWN_ACTIONS]) + (f" and {more} more" if more > 0 else "")
