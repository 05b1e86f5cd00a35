"""Three real environments: applied, met, changed by hand, found by the drift workflow, mended, destroyed.

Terraform, its AWS provider, the driver and the workflow are real; AWS is moto, and what moto lacks is merged over the
copies that run here (tests/fakes/moto_overrides). The tests are one story and run in the order of the file.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from infra.drift import Cause, attribute
from infra.driver.errors import NotConfirmed
from infra.terraform import DriftReport, TerraformDriver
from tests.fakes.moto import MotoServer
from tests.fakes.terraform_provider import shared_provider
from tests.fakes.terraform_world import PROJECT, VALUES, TerraformWorld, needs_provider, provider_binary, state_in

pytestmark = [needs_provider(), pytest.mark.timeout(420)]

STATES: Final = "flightpath-states"
PLACES: Final = {"eu-west": "eu-west-1", "us-east": "us-east-1"}
"""Regions of AWS by environment, in the order of the second round: the first asks for the peering."""
GATEWAYS: Final = {name: f"gateway.{name}.example.com" for name in PLACES}
GLOBAL: Final[dict[str, Any]] = {
    "cost_center": "research",
    "zone": "models.example.com",
    "create_zone": True,
    "regions": {
        "us-east": {"region": "us-east-1", "gateway": GATEWAYS["us-east"], "bucket": "a", "replica_bucket": "b"},
        "eu-west": {"region": "eu-west-1", "gateway": GATEWAYS["eu-west"], "bucket": "b"},
    },
}
ENVIRONMENTS: Final = (*PLACES, "global")


@dataclass
class Regions:
    aws: MotoServer
    world: TerraformWorld
    drivers: dict[str, TerraformDriver]
    attached: dict[str, dict[str, str]]
    """What makes Terraform use the provider that serves this environment."""
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def each(self, act: Callable[[str], Any]) -> dict[str, Any]:
        """All side by side: most of an apply is waiting."""
        with ThreadPoolExecutor(len(self.drivers)) as pool:
            return dict(zip(self.drivers, pool.map(act, self.drivers), strict=True))

    def apply(self, region: str) -> tuple[str, ...]:
        return self.drivers[region].apply(self.drivers[region].plan(self.values[region])).done

    def meet(self) -> None:
        """The second round: each with the other's output."""
        for region in PLACES:
            neighbours = {
                f"flightpath-{other}": driver.output()["neighbour"].value
                for other, driver in self.drivers.items()
                if other in PLACES and other != region
            }
            self.values[region] = {**self.values[region], "neighbours": neighbours}
            self.apply(region)

    def state(self, region: str) -> str:
        body = self.aws.client("s3").get_object(Bucket=STATES, Key=f"flightpath/{region}.tfstate")["Body"]
        return str(body.read().decode())

    def client(self, service: str, region: str) -> Any:
        return self.aws.client(service, PLACES[region])


def provider_of(aws: MotoServer, folder: Path) -> AbstractContextManager[dict[str, str]]:
    folder.mkdir()
    return shared_provider(provider_binary(), folder, cloud=aws.environment)


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    root = tmp_path_factory.mktemp("regions")
    with MotoServer(root / "moto.log") as aws, ExitStack() as providers:
        aws.client("s3").create_bucket(Bucket=STATES)
        world = TerraformWorld(root / "world", cloud=aws.environment).for_moto()
        attached = {name: providers.enter_context(provider_of(aws, root / name)) for name in ENVIRONMENTS}
        drivers = {name: world.driver(f"environments/{name}", environment=attached[name]) for name in ENVIRONMENTS}
        made = Regions(aws=aws, world=world, drivers=drivers, attached=attached)
        made.values = {"global": GLOBAL, **{name: {**VALUES, "protect": False} for name in PLACES}}
        made.each(lambda name: drivers[name].init(state_in(STATES)))
        made.each(made.apply)
        made.meet()
        yield made


def drift_workflow(regions: Regions, region: str, home: Path) -> subprocess.CompletedProcess[str]:
    settings = {
        "FLIGHTPATH_HOME": str(home),
        "FLIGHTPATH_INFRA_ENVIRONMENTS": str(regions.world.root / "environments"),
        "FLIGHTPATH_INFRA_BACKEND": json.dumps(state_in(STATES)),
        "FLIGHTPATH_INFRA_VARIABLES": json.dumps(
            {name: json.dumps(value) for name, value in regions.values[region].items()}
        ),
    }
    pyflyte = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", "workflows/clusters.py"]
    return subprocess.run(
        [*pyflyte, "drift", "--region", region],
        cwd=PROJECT,
        env={**regions.world.environment, **regions.attached[region], **settings},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_second_plan_finds_nothing(regions: Regions) -> None:
    reports = regions.each(lambda name: regions.drivers[name].drift(regions.values[name]))
    pending = {
        name: [(change.address, change.attributes) for change in report.pending] for name, report in reports.items()
    }
    assert pending == {"eu-west": [], "us-east": [], "global": []}


def test_the_regions_are_peered_and_route_to_each_other(regions: Regions) -> None:
    (peering,) = regions.client("ec2", "eu-west").describe_vpc_peering_connections()["VpcPeeringConnections"]
    assert peering["Status"]["Code"] == "active"
    for region, there in (("eu-west", "10.0.0.0/16"), ("us-east", "10.1.0.0/16")):
        tables = regions.client("ec2", region).describe_route_tables()["RouteTables"]
        over = [route for table in tables for route in table["Routes"] if route.get("VpcPeeringConnectionId")]
        assert [route["DestinationCidrBlock"] for route in over] == [there] * 3  # a table for each zone


def test_objects_are_copied_to_the_neighbour_and_nobody_reads_them_from_outside(regions: Regions) -> None:
    s3 = regions.client("s3", "us-east")
    stores = {name: regions.drivers[name].output()["storage"].value for name in PLACES}
    assert stores["us-east"]["replica_bucket"] == stores["eu-west"]["bucket"]
    bucket = stores["us-east"]["bucket"]
    (rule,) = s3.get_bucket_replication(Bucket=bucket)["ReplicationConfiguration"]["Rules"]
    assert rule["Destination"]["Bucket"] == f"arn:aws:s3:::{stores['eu-west']['bucket']}"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_the_clusters_are_private_and_their_gpu_nodes_tainted(regions: Regions) -> None:
    for region in PLACES:
        eks = regions.client("eks", region)
        name = f"flightpath-{region}"
        access = eks.describe_cluster(name=name)["cluster"]["resourcesVpcConfig"]
        assert (access["endpointPublicAccess"], access["endpointPrivateAccess"]) == (False, True)
        training = eks.describe_nodegroup(clusterName=name, nodegroupName="training")["nodegroup"]
        assert training["labels"]["flightpath.dev/node-group"] == "training"
        assert {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"} in training["taints"]


def test_one_name_leads_to_both_regions_while_they_are_well(regions: Regions) -> None:
    route53 = regions.client("route53", "us-east")
    checks = {check["Id"]: check["HealthCheckConfig"] for check in route53.list_health_checks()["HealthChecks"]}
    assert {check["FullyQualifiedDomainName"] for check in checks.values()} == set(GATEWAYS.values())
    (zone,) = route53.list_hosted_zones()["HostedZones"]
    records = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    mine = [record for record in records if record["Name"] == "api.models.example.com."]
    assert {record["Region"] for record in mine} == set(PLACES.values())
    assert {record["HealthCheckId"] for record in mine} == set(checks)
    assert regions.drivers["global"].output()["fqdn"].value == "api.models.example.com"


def test_the_states_hold_no_password_and_no_lock_is_left(regions: Regions) -> None:
    """us-east's database is one that another follows: Terraform hands its password on, and keeps it nowhere."""
    secrets = regions.client("secretsmanager", "us-east")
    (secret,) = [item for item in secrets.list_secrets()["SecretList"] if item["Name"].endswith("-database")]
    password = secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"]
    assert len(password) == 32
    assert password not in regions.state("us-east") + regions.state("eu-west")
    kept = regions.aws.client("s3").list_objects_v2(Bucket=STATES)["Contents"]
    assert {item["Key"] for item in kept} == {f"flightpath/{name}.tfstate" for name in ENVIRONMENTS}


LOGS: Final = "module.region.module.observability.aws_cloudwatch_log_group.containers"
ALARM: Final = "module.region.module.observability.aws_cloudwatch_metric_alarm.nodes"


def test_what_was_changed_and_deleted_by_hand_is_found_and_the_workflow_fails(regions: Regions, tmp_path: Path) -> None:
    before = regions.state("eu-west")
    regions.client("logs", "eu-west").put_retention_policy(
        logGroupName="/flightpath/flightpath-eu-west/containers", retentionInDays=1
    )
    regions.client("cloudwatch", "eu-west").delete_alarms(AlarmNames=["flightpath-eu-west-failed-nodes"])

    with ThreadPoolExecutor(2) as pool:
        told = pool.submit(drift_workflow, regions, "eu-west", tmp_path)
        untouched = pool.submit(regions.drivers["us-east"].drift, regions.values["us-east"])
    done = told.result()
    assert done.returncode == 1, done.stdout
    assert f"{LOGS} changed" in done.stderr
    assert f"{ALARM} deleted" in done.stderr
    page = (tmp_path / "decks" / "clusters-eu-west" / "drift.html").read_text()
    assert "retention_in_days: 365 -&gt; 1" in page
    assert not untouched.result().has_changes
    assert regions.state("eu-west") == before


def test_the_next_apply_undoes_exactly_that(regions: Regions) -> None:
    driver, values = regions.drivers["eu-west"], regions.values["eu-west"]
    plan = driver.plan(values)
    report = DriftReport(has_changes=plan.has_changes, drifted=plan.drift, pending=plan.changes)
    causes = {drift.address: (drift.cause, drift.remedy) for drift in attribute(report).drifts}
    # What moto tells otherwise than it was given, an apply leaves alone.
    assert {address: found for address, found in causes.items() if found[1] != "nothing"} == {
        LOGS: (Cause.CHANGED, "update"),
        ALARM: (Cause.DELETED, "create"),
    }
    assert set(driver.apply(plan).done) == {LOGS, ALARM}
    (group,) = regions.client("logs", "eu-west").describe_log_groups(
        logGroupNamePrefix="/flightpath/flightpath-eu-west/c"
    )["logGroups"]
    assert group["retentionInDays"] == 365
    assert len(regions.client("cloudwatch", "eu-west").describe_alarms()["MetricAlarms"]) == 1
    assert not driver.drift(values).has_changes


def test_nothing_is_destroyed_without_the_token_of_this_very_state(regions: Regions) -> None:
    token = regions.drivers["us-east"].destroy_token()
    with pytest.raises(NotConfirmed, match="destroy_token"):
        regions.drivers["eu-west"].destroy(regions.values["eu-west"], confirm=token)
    assert regions.client("eks", "eu-west").list_clusters()["clusters"] == ["flightpath-eu-west"]


def test_with_it_everything_goes_also_where_somebody_was_first(regions: Regions) -> None:
    """eu-west's database is gone already: that stops no destroy."""
    regions.client("rds", "eu-west").delete_db_instance(
        DBInstanceIdentifier="flightpath-eu-west", SkipFinalSnapshot=True
    )

    def destroy(region: str) -> None:
        driver = regions.drivers[region]
        driver.destroy(regions.values[region], confirm=driver.destroy_token())

    regions.each(destroy)
    assert all(json.loads(regions.state(name))["resources"] == [] for name in ENVIRONMENTS)
    assert regions.client("route53", "us-east").list_hosted_zones()["HostedZones"] == []
    for region in PLACES:
        assert regions.client("eks", region).list_clusters()["clusters"] == []
        assert regions.client("rds", region).describe_db_instances()["DBInstances"] == []
        networks = regions.client("ec2", region).describe_vpcs()["Vpcs"]
        assert [network["CidrBlock"] for network in networks if not network["IsDefault"]] == []
    assert [bucket["Name"] for bucket in regions.aws.client("s3").list_buckets()["Buckets"]] == [STATES]
