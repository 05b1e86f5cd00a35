"""Clusters of a region: plan, policy, approval, apply, install, smoke; what drifts from them, and what they cost."""

from datetime import timedelta
from functools import partial

from flytekit import map_task, wait_for_input, workflow

from tasks.clusters.cost_outcomes import CostReport
from tasks.clusters.outcomes import DriftFound, ProvisionReport, RegionPlan
from tasks.clusters.task import (
    apply_region,
    check_region,
    cost_region,
    find_drift,
    install_region,
    plan_region,
    report_costs,
    require_approval,
    require_clean,
    require_policy,
)


@workflow
def plan(
    region: str,
    variables: dict[str, str] = {},  # noqa: B006  # Flyte reads defaults from the signature
    backend: dict[str, str] = {},  # noqa: B006  # likewise
) -> RegionPlan:
    """What a provision would do and cost, and the digest that approves it."""
    planned = plan_region(region=region, variables=variables, backend=backend)
    return require_policy(plan=planned)


@workflow
def carry_out(plan: RegionPlan, approval: str, install_by: str) -> ProvisionReport:
    """From a plan and its approval to a region that runs."""
    approved = require_approval(plan=plan, approval=approval, install_by=install_by)
    applied = apply_region(plan=approved, approval=approval)
    installed = install_region(applied=applied, install_by=install_by)
    return check_region(plan=approved, applied=applied, installed=installed)


@workflow
def provision(
    region: str,
    approval: str = "",
    install_by: str = "kubectl",
    variables: dict[str, str] = {},  # noqa: B006  # Flyte reads defaults from the signature
    backend: dict[str, str] = {},  # noqa: B006  # likewise
) -> ProvisionReport:
    """`approval` is the digest that `plan` told; a plan that has moved on since is refused. `install_by`: kubectl,
    argocd (which the cluster runs already), or nobody."""
    planned = plan(region=region, variables=variables, backend=backend)
    return carry_out(plan=planned, approval=approval, install_by=install_by)


@workflow
def provision_with_gate(
    region: str,
    install_by: str = "kubectl",
    variables: dict[str, str] = {},  # noqa: B006  # Flyte reads defaults from the signature
    backend: dict[str, str] = {},  # noqa: B006  # likewise
) -> ProvisionReport:
    """The same in one execution: it waits in the console for a person to enter the plan's digest."""
    planned = plan(region=region, variables=variables, backend=backend)
    approval = wait_for_input("approval", timeout=timedelta(days=1), expected_type=str)
    planned >> approval
    return carry_out(plan=planned, approval=approval, install_by=install_by)


@workflow
def drift(
    region: str,
    cloudtrail_region: str = "",
    variables: dict[str, str] = {},  # noqa: B006  # Flyte reads defaults from the signature
    backend: dict[str, str] = {},  # noqa: B006  # likewise
) -> DriftFound:
    """Fails on drift, with a report that says what, why and by whom."""
    found = find_drift(region=region, variables=variables, backend=backend, cloudtrail_region=cloudtrail_region)
    return require_clean(found=found)


@workflow
def cost(
    regions: list[str] = ["us-east", "eu-west", "asia-pacific"],  # noqa: B006  # Flyte reads defaults from the signature
    prometheus: dict[str, str] = {},  # noqa: B006  # likewise
    stored_gb: float = 0.0,
    moved_gb: float = 0.0,
    variables: dict[str, str] = {},  # noqa: B006  # likewise
    backend: dict[str, str] = {},  # noqa: B006  # likewise
) -> CostReport:
    """`prometheus`: a server's URL by region, for forecast and sizes. `stored_gb` lies in each bucket, `moved_gb` goes
    to each other region in a month."""
    one = partial(cost_region, variables=variables, backend=backend, stored_gb=stored_gb)
    costs = map_task(one)(region=regions)
    return report_costs(costs=costs, prometheus=prometheus, moved_gb=moved_gb)
