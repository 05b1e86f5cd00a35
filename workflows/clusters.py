"""Clusters of a region: plan, policy, approval, apply, install, smoke; and what drifts from them."""

from datetime import timedelta

from flytekit import wait_for_input, workflow

from tasks.clusters.outcomes import DriftFound, ProvisionReport, RegionPlan
from tasks.clusters.task import (
    apply_region,
    check_region,
    find_drift,
    install_region,
    plan_region,
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
