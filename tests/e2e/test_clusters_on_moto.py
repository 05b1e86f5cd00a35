"""The workflows of clusters on the real modules: planned, judged, approved, applied and priced, against moto."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from infra.cost.plan import cost_of_plan
from infra.cost.prices import load_prices
from tests.fakes.moto import MotoServer
from tests.fakes.recorded_plans.recording import recorded
from tests.fakes.terraform_world import PROJECT, VALUES, TerraformWorld, needs_provider

pytestmark = [needs_provider(), pytest.mark.timeout(420)]

LOCAL: Final = 'terraform {\n  backend "local" {}\n}\n'
STORE: Final = """
provider "aws" {
  region = "us-east-1"
}
module "storage" {
  source = "../../modules/aws/storage"
  name   = "flightpath-trial"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "trial", cost-center = "research" }
}
output "url" { value = module.storage.url }
"""
POLICY: Final = "schema_version: 1\ncost_ceiling_usd: {least: 0, most: 0}\ngpu_quota: {}\n"


@dataclass(frozen=True)
class Cloud:
    aws: MotoServer
    world: TerraformWorld

    def pyflyte(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", "run", "workflows/clusters.py"]
        mine = {
            "FLIGHTPATH_HOME": str(self.home),
            "FLIGHTPATH_INFRA_ENVIRONMENTS": str(self.world.root / "environments"),
        }
        return subprocess.run(
            [*command, *arguments],
            cwd=PROJECT,
            env={**self.world.environment, **mine},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def home(self) -> Path:
        return self.world.root / "home"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    root = tmp_path_factory.mktemp("cloud")
    with MotoServer(root / "moto.log") as aws:
        world = TerraformWorld(root / "world", cloud=aws.environment).for_moto()
        for region in ("us-east", "eu-west"):
            (world.root / "environments" / region / "state_override.tf").write_text(LOCAL)
        (world.root_of("trial", STORE) / "policy.yaml").write_text(POLICY)
        yield Cloud(aws, world)


def values() -> str:
    return json.dumps({name: json.dumps(value) for name, value in VALUES.items()})


def test_a_store_is_provisioned_after_its_plan_was_approved(cloud: Cloud) -> None:
    planned = cloud.pyflyte("plan", "--region", "trial")
    assert planned.returncode == 0, planned.stderr
    (digest,) = set(re.findall(r"digest (\w{64})", planned.stderr))
    assert cloud.aws.client("s3").list_buckets()["Buckets"] == []

    done = cloud.pyflyte("provision", "--region", "trial", "--approval", digest[:16], "--install_by", "nobody")
    assert done.returncode == 0, done.stderr
    (bucket,) = cloud.aws.client("s3").list_buckets()["Buckets"]
    assert bucket["Name"].startswith("flightpath-trial-artifacts")
    again = cloud.pyflyte("provision", "--region", "trial", "--install_by", "nobody")
    assert "applied=0" in again.stdout, again.stderr


def test_a_region_with_a_public_api_server_is_refused_by_resource_and_rule(cloud: Cloud) -> None:
    main = cloud.world.root / "environments" / "us-east" / "main.tf"
    text = main.read_text()
    opened = 'private_endpoint = false\n  admin_cidrs = ["203.0.113.0/24"]\n'
    main.write_text(re.sub(r"admin_cidrs +=.*\n", opened, text))
    try:
        done = cloud.pyflyte("plan", "--region", "us-east", "--variables", values())
    finally:
        main.write_text(text)
    assert done.returncode == 1
    told = (
        "no-public-endpoint at module.region.module.cluster.aws_eks_cluster.this: got vpc_config.endpoint_public_access"
    )
    assert told in done.stderr
    assert "breaks 1 rule:" in done.stderr


def test_the_cost_of_two_regions_is_told_on_one_page(cloud: Cloud) -> None:
    order = ("--regions", '["us-east", "eu-west"]', "--variables", values(), "--moved_gb", "100")
    done = cloud.pyflyte("cost", *order)
    assert done.returncode == 0, done.stderr
    prices = load_prices(PROJECT / "examples" / "infra" / "prices.json")
    costs = [cost_of_plan(recorded(region), prices) for region in ("us-east", "eu-west")]
    page = (cloud.home / "decks" / "clusters-all" / "cost.html").read_text()
    for cost in costs:
        assert f"{cost.least_usd:,.0f}" in page
        assert f"{cost.most_usd:,.0f}" in page
    assert f"{sum(cost.least_usd for cost in costs):,.0f} USD a month with every node group at its smallest" in page
    assert page.count("<svg") == 1
    assert "p4d.24xlarge" in page
