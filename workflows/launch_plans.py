"""When workflows run by themselves. Active once activated: `pyflyte launchplan <name>`; see docs/infra.md.

Their variables and state backend come from FLIGHTPATH_INFRA_VARIABLES and FLIGHTPATH_INFRA_BACKEND of the tasks.
"""

from flytekit import CronSchedule, LaunchPlan

from workflows.clusters import cost, drift

# AWS's own name of the region, in which CloudTrail is asked; the minutes are apart, so that the runs are.
_AWS = {"us-east": ("us-east-1", 5), "eu-west": ("eu-west-1", 20), "asia-pacific": ("ap-southeast-1", 35)}

drift_daily = {
    region: LaunchPlan.get_or_create(
        workflow=drift,
        name=f"drift-{region}-daily",
        default_inputs={"region": region, "cloudtrail_region": aws_region},
        schedule=CronSchedule(schedule=f"{minute} 5 * * *"),
    )
    for region, (aws_region, minute) in _AWS.items()
}

cost_weekly = LaunchPlan.get_or_create(workflow=cost, name="cost-weekly", schedule=CronSchedule(schedule="0 6 * * 1"))
