"""Flyte shells of clusters. Each step opens its region anew, since each may run in a pod of its own."""

from flytekit import task

from tasks.boundary import at_boundary, publish_deck
from tasks.clusters import cost_page, costing, drifting, installing, pages, planning
from tasks.clusters.cost_outcomes import CostReport, RegionCost
from tasks.clusters.outcomes import AppliedRegion, DriftFound, InstalledRegion, ProvisionReport, RegionPlan
from tasks.clusters.settings import ClusterSettings
from tasks.progress import announce


@task(enable_deck=True, deck_fields=())
@at_boundary
def plan_region(region: str, variables: dict[str, str], backend: dict[str, str]) -> RegionPlan:
    """Plan, judge by policy, and show both; nothing is changed and nothing is kept."""
    planned = planning.plan_region(region, variables, backend, ClusterSettings())
    page = publish_deck(f"clusters-{region}", "plan", "Plan", pages.plan_page(planned))
    counts = {"create": planned.adds, "change": planned.changes + planned.replaces, "destroy": planned.destroys}
    announce("plan", f"{region}: digest {planned.digest}", **counts, page=str(page))
    return planned


@task
@at_boundary
def require_policy(plan: RegionPlan) -> RegionPlan:
    """Let the execution fail when the plan breaks a rule that no waiver covers."""
    planning.require_policy(plan)
    for waived in plan.waived:
        announce("policy", waived)
    return plan


@task
@at_boundary
def require_approval(plan: RegionPlan, approval: str, install_by: str) -> RegionPlan:
    """Let the execution fail unless somebody repeated the digest of this very plan."""
    installing.require_way(install_by)
    planning.require_approval(plan, approval)
    return plan


@task
@at_boundary
def apply_region(plan: RegionPlan, approval: str) -> AppliedRegion:
    """Apply the approved plan, or refuse if the world has moved on since."""
    applied = planning.apply_region(plan, approval, ClusterSettings())
    message = f"{plan.region} is applied, approved by {applied.approved_by}"
    announce("apply", message, changes=len(applied.done), seconds=applied.seconds)
    return applied


@task
@at_boundary
def install_region(applied: AppliedRegion, install_by: str) -> InstalledRegion:
    """Put the operator, serving and observability onto the region's cluster."""
    return installing.install_region(applied, install_by, ClusterSettings())


@task
@at_boundary
def check_region(plan: RegionPlan, applied: AppliedRegion, installed: InstalledRegion) -> ProvisionReport:
    """See that what was installed is there and ready."""
    checks = installing.check_region(installed, ClusterSettings())
    for check in checks:
        announce("smoke", check)
    return ProvisionReport(
        region=plan.region,
        digest=plan.digest,
        applied=len(applied.done),
        installed=len(installed.objects),
        checks=checks,
        least_usd=plan.least_usd,
        most_usd=plan.most_usd,
    )


@task(enable_deck=True, deck_fields=())
@at_boundary
def find_drift(region: str, variables: dict[str, str], backend: dict[str, str], cloudtrail_region: str) -> DriftFound:
    """What is not as it was applied, why, and, where an audit log is asked, by whom."""
    log = drifting.change_log(cloudtrail_region)
    found = drifting.as_found(region, drifting.find_drift(region, variables, backend, ClusterSettings(), log=log))
    page = publish_deck(f"clusters-{region}", "drift", "Drift", pages.drift_page(found))
    found.page = str(page)
    announce("drift", f"{region}: {len(found.rows)} differences", page=found.page)
    return found


@task
@at_boundary
def require_clean(found: DriftFound) -> DriftFound:
    """Let the execution fail on drift, so that its launch plan's notification is sent; the page is kept."""
    drifting.require_clean(found)
    return found


@task
@at_boundary
def cost_region(region: str, variables: dict[str, str], backend: dict[str, str], stored_gb: float) -> RegionCost:
    """What the region's configuration costs by the price file; nothing is changed."""
    return costing.cost_region(region, variables, backend, stored_gb, ClusterSettings())


@task(enable_deck=True, deck_fields=())
@at_boundary
def report_costs(costs: list[RegionCost], prometheus: dict[str, str], moved_gb: float) -> CostReport:
    """All regions side by side, with a forecast and advice where a Prometheus tells of use."""
    report = costing.report_costs(costs, prometheus, moved_gb, ClusterSettings())
    page = publish_deck("clusters-all", "cost", "Cost", cost_page.cost_page(report))
    report.page = str(page)
    announce("cost", f"{len(costs)} regions", least_usd=report.least_usd, most_usd=report.most_usd, page=report.page)
    return report
