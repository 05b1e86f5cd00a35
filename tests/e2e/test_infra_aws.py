"""What an apply meets in real life, against moto: a name that is taken, a lock, credentials, a region that is none.

tests/e2e/test_infra_drift.py has whole environments, from apply to destroy.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from infra.driver import errors
from infra.terraform import TerraformDriver
from tests.fakes.moto import ACCOUNT, MotoServer
from tests.fakes.terraform_world import LIMITS, TerraformWorld, needs_provider, state_in

pytestmark = needs_provider()

STATES: Final = "flightpath-states"
# Built-in resources alone, so that a test of the state starts no provider.
STATEFUL: Final = """
terraform {
  backend "s3" {
    key          = "flightpath/small.tfstate"
    use_lockfile = true
  }
}
variable "size" { default = 1 }
resource "terraform_data" "this" { input = var.size }
"""

# The second topic waits for the role, and the role's name may be taken.
PARTIAL: Final = """
provider "aws" { region = "us-east-1" }
resource "aws_sns_topic" "before" { name = "before" }
resource "aws_iam_role" "this" {
  name               = "taken"
  assume_role_policy = jsonencode({ Version = "2012-10-17", Statement = [] })
  depends_on         = [aws_sns_topic.before]
}
resource "aws_sns_topic" "after" {
  name       = "after"
  depends_on = [aws_iam_role.this]
}
"""

NOWHERE: Final = """
provider "aws" { region = "us-mars-1" }
resource "aws_sns_topic" "this" { name = "nobody" }
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with MotoServer(tmp_path_factory.mktemp("moto") / "moto.log") as running:
        running.client("s3").create_bucket(Bucket=STATES)
        yield running


@pytest.fixture(scope="module")
def world(aws: MotoServer, tmp_path_factory: pytest.TempPathFactory) -> TerraformWorld:
    return TerraformWorld(tmp_path_factory.mktemp("terraform") / "world", cloud=aws.environment).for_moto()


def stored(aws: MotoServer, key: str) -> bytes:
    body: bytes = aws.client("s3").get_object(Bucket=STATES, Key=key)["Body"].read()
    return body


def small(world: TerraformWorld, name: str, text: str) -> TerraformDriver:
    folder = world.root_of(name, text)
    if 'provider "aws"' not in text:
        (folder / "moto_override.tf").unlink()
    return TerraformDriver(folder, environment=world.environment, limits=LIMITS)


def test_an_unknown_variable_is_named_and_nothing_is_written(aws: MotoServer, world: TerraformWorld) -> None:
    driver = small(world, "unknown", STATEFUL.replace("small", "unknown"))
    driver.init(state_in(STATES))
    with pytest.raises(errors.InvalidVariable, match=r"sise, expected one of size"):
        driver.plan({"sise": 2})
    assert "Contents" not in aws.client("s3").list_objects_v2(Bucket=STATES, Prefix="flightpath/unknown")


def test_a_state_that_another_holds_is_told_with_the_holder_and_left_alone(
    aws: MotoServer, world: TerraformWorld
) -> None:
    driver = small(world, "held", STATEFUL)
    driver.init(state_in(STATES))
    driver.apply(driver.plan())
    held = "flightpath/small.tfstate"
    before = stored(aws, held)
    lock = {"ID": "4f1c", "Operation": "OperationTypeApply", "Who": "ci@runner-7", "Created": "2026-01-01T00:00:00Z"}
    aws.client("s3").put_object(Bucket=STATES, Key=f"{held}.tflock", Body=json.dumps(lock).encode())
    with pytest.raises(errors.StateLocked, match=r"lock 4f1c of ci@runner-7") as caught:
        driver.plan({"size": 2})
    assert (caught.value.who, caught.value.lock_id) == ("ci@runner-7", "4f1c")
    assert stored(aws, held) == before
    assert json.loads(stored(aws, f"{held}.tflock")) == lock

    aws.client("s3").delete_object(Bucket=STATES, Key=f"{held}.tflock")
    assert driver.apply(driver.plan({"size": 2})).done == ("terraform_data.this",)


def test_credentials_that_aws_does_not_take_are_told_and_the_state_stays(
    aws: MotoServer, world: TerraformWorld
) -> None:
    driver = small(world, "refused", STATEFUL.replace("small", "refused"))
    driver.init(state_in(STATES))
    driver.apply(driver.plan())
    key = "flightpath/refused.tfstate"
    before = stored(aws, key)
    checked(aws, "0")
    try:
        with pytest.raises(errors.CredentialsExpired, match=r"InvalidAccessKeyId|InvalidClientTokenId"):
            driver.plan({"size": 2})
    finally:
        checked(aws, "inf")
    assert stored(aws, key) == before


def checked(aws: MotoServer, free_calls: str) -> None:
    """From how many calls on moto asks who calls; it knows no users, so that nobody is let in."""
    url = f"{aws.endpoint}/moto-api/reset-auth"
    httpx.post(url, content=free_calls, timeout=10, trust_env=False).raise_for_status()


def test_a_region_that_is_not_there_is_told(world: TerraformWorld) -> None:
    driver = small(world, "nowhere", NOWHERE)
    override = driver.working_dir / "moto_override.tf"
    override.write_text(override.read_text().replace("skip_region_validation      = true", ""))
    driver.init()
    with pytest.raises(errors.PlanFailed, match="us-mars-1"):
        driver.plan()


@pytest.mark.smoke
def test_an_apply_that_stops_halfway_says_where_and_resumes(aws: MotoServer, world: TerraformWorld) -> None:
    iam = aws.client("iam")
    iam.create_role(RoleName="taken", AssumeRolePolicyDocument="{}")
    driver = small(world, "partial", PARTIAL)
    driver.init()
    with pytest.raises(errors.ApplyFailed, match="EntityAlreadyExists") as caught:
        driver.apply(driver.plan())
    assert caught.value.done == ("aws_sns_topic.before",)
    assert caught.value.failed == ("aws_iam_role.this",)
    assert resources(driver.working_dir) == {"aws_sns_topic.before"}

    iam.delete_role(RoleName="taken")
    plan = driver.plan()
    assert {change.address for change in plan.changes} == {"aws_iam_role.this", "aws_sns_topic.after"}
    driver.apply(plan)
    assert not driver.plan().has_changes
    topics = {topic["TopicArn"] for topic in aws.client("sns").list_topics()["Topics"]}
    assert topics == {f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}" for name in ("before", "after")}


def resources(folder: Path) -> set[str]:
    state: dict[str, Any] = json.loads((folder / "terraform.tfstate").read_text())
    return {f"{item['type']}.{item['name']}" for item in state["resources"] if item["instances"]}
