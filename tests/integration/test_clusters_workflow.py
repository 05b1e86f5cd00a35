"""Provisioning for real: pyflyte, Terraform, its state. The resources are terraform_data, the cluster is a test one."""

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.driver.errors import ApplyFailed, InvalidVariable, MissingBinary
from infra.policy import PolicyBreached
from serving.errors import FlightpathError
from tasks.clusters import drifting, installing, planning
from tasks.clusters.errors import (
    Drifted,
    InstallFailed,
    NotApproved,
    NotReady,
    PlanChanged,
    UnknownEnvironment,
)
from tasks.clusters.outcomes import AppliedRegion, RegionPlan
from tests.fakes.cluster_addons import report_rolled_out
from tests.fakes.cluster_world import POLICY, PROJECT, REGION, ClusterWorld
from tests.fakes.kubernetes.app import ApiServer

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="needs the terraform binary")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


@pytest.fixture
def world(tmp_path: Path) -> ClusterWorld:
    return ClusterWorld.made(tmp_path / "world")


def plan(world: ClusterWorld, variables: Mapping[str, str] | None = None, region: str = REGION) -> RegionPlan:
    return planning.plan_region(region, variables or {}, {}, world.settings())


def provision(world: ClusterWorld, variables: Mapping[str, str] | None = None) -> AppliedRegion:
    planned = plan(world, variables)
    return planning.apply_region(planned, planned.digest, world.settings())


def state(world: ClusterWorld) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.folder / "terraform.tfstate").read_text())
    return found


def plans_left(world: ClusterWorld) -> list[Path]:
    return list((world.folder / ".terraform" / "flightpath").glob("*.tfplan"))


# By pyflyte, as a user does


def test_pyflyte_asks_for_an_approval_and_applies_once_it_has_it(world: ClusterWorld) -> None:
    order = ("provision", "--region", REGION, "--install_by", "nobody")
    refused = world.pyflyte(*order)
    assert refused.returncode == 1
    told = re.search(
        r"flightpath: .* it would create 2 .* got no approval, expected its digest (\w{12})", refused.stderr
    )
    assert told, refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout
    page = (world.root / "home" / "decks" / f"clusters-{REGION}" / "plan.html").read_text()
    assert "create terraform_data.nodes" in page

    done = world.pyflyte(*order, "--approval", told[1])
    assert done.returncode == 0, done.stderr
    assert "applied=2" in done.stdout
    assert len(state(world)["resources"]) == 2
    assert plans_left(world) == []


def test_pyflyte_refuses_a_plan_that_breaks_a_rule_and_names_resource_and_rule(world: ClusterWorld) -> None:
    provision(world)
    before = state(world)
    done = world.pyflyte("plan", "--region", REGION, "--variables", '{"name": "second"}')
    assert done.returncode == 1
    assert "stateful-kept at terraform_data.store: got replaced since triggers_replace cannot change" in done.stderr
    assert state(world) == before


def test_the_gate_takes_the_digest_that_a_person_enters(world: ClusterWorld) -> None:
    digest = plan(world).digest
    order = ("provision_with_gate", "--region", REGION, "--install_by", "nobody")
    done = world.pyflyte(*order, stdin=f"{digest}\n")
    assert done.returncode == 0, done.stderr
    assert "applied=2" in done.stdout


def test_pyflyte_finds_drift_fails_and_keeps_the_report(world: ClusterWorld) -> None:
    provision(world, {"size": "3"})
    done = world.pyflyte("drift", "--region", REGION)
    assert done.returncode == 1
    assert "is not as it was applied: terraform_data.nodes unattributed" in done.stderr
    page = (world.root / "home" / "decks" / f"clusters-{REGION}" / "drift.html").read_text()
    assert "the configuration was changed and not applied" in page
    assert "input: 3 -&gt; 1" in page


def test_pyflyte_ends_with_one_line_for_a_region_or_a_binary_that_is_not_there(world: ClusterWorld) -> None:
    unknown = world.pyflyte("provision", "--region", "south")
    missing = world.pyflyte("plan", "--region", REGION, PATH="/nowhere")
    assert (unknown.returncode, missing.returncode) == (1, 1)
    assert "flightpath: the region is not known, got 'south', expected one of north" in unknown.stderr
    assert "flightpath: terraform was not found, got PATH=/nowhere" in missing.stderr
    assert "Traceback" not in unknown.stderr + missing.stderr


# The steps


@pytest.mark.parametrize("region", ["nowhere", "", "..", "../environments/north"])
def test_an_unknown_region_is_told_with_those_that_there_are(world: ClusterWorld, region: str) -> None:
    with pytest.raises(UnknownEnvironment, match=r"the region is not known, got .*, expected one of north"):
        plan(world, region=region)


def test_a_missing_binary_is_told(world: ClusterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingBinary, match="got PATH=/nowhere"):
        plan(world)


def test_without_the_plans_own_digest_nothing_is_applied(world: ClusterWorld) -> None:
    planned = plan(world)
    for approval in ("", "yes", "0" * 64, planned.digest[:11], planned.digest + "0"):
        with pytest.raises(NotApproved, match="expected its digest"):
            planning.apply_region(planned, approval, world.settings())
    assert not (world.folder / "terraform.tfstate").exists()


def test_a_plan_that_is_another_one_by_now_is_not_applied(world: ClusterWorld) -> None:
    planned = plan(world)
    text = (world.folder / "main.tf").read_text()
    (world.folder / "main.tf").write_text(text + 'resource "terraform_data" "slipped_in" { input = 1 }\n')
    with pytest.raises(PlanChanged, match=r"create terraform_data\.slipped_in differ"):
        planning.apply_region(planned, planned.digest, world.settings())
    assert not (world.folder / "terraform.tfstate").exists()
    assert plans_left(world) == []


def test_an_approval_holds_for_one_world_and_not_for_the_next(world: ClusterWorld) -> None:
    first = plan(world, {"size": "2"})
    provision(world, {"size": "5"})
    with pytest.raises(PlanChanged):
        planning.apply_region(first, first.digest, world.settings())
    assert provision(world, {"size": "5"}).done == []


def test_an_apply_that_stopped_half_way_is_resumed_under_an_approval_of_what_is_left(world: ClusterWorld) -> None:
    text = (world.folder / "main.tf").read_text()
    late = 'resource "terraform_data" "late" {\n  depends_on = [terraform_data.nodes, terraform_data.store]\n'
    marker = world.root / "marker"
    late += f'  provisioner "local-exec" {{\n    command = "test -e {marker}"\n  }}\n}}\n'
    (world.folder / "main.tf").write_text(text + late)
    first = plan(world)
    with pytest.raises(ApplyFailed) as caught:
        planning.apply_region(first, first.digest, world.settings())
    assert set(caught.value.done) == {"terraform_data.nodes", "terraform_data.store"}

    marker.touch()
    with pytest.raises(PlanChanged):
        planning.apply_region(first, first.digest, world.settings())
    # A failed provisioner taints what it made, and this world's policy keeps every terraform_data.
    world.write_policy({**POLICY, "stateful_types": []})
    assert provision(world).done[-1] == "terraform_data.late"
    assert not plan(world).has_changes


def test_the_same_plan_has_the_same_digest_and_a_secret_is_not_in_it(
    world: ClusterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "swordfish-1")
    order = {"password": "env:DB_PASSWORD"}
    first, second = plan(world, order), plan(world, order)
    assert first == second
    assert "swordfish" not in str(first)
    provision(world, order)
    assert "swordfish-1" in (world.folder / "terraform.tfstate").read_text()
    with pytest.raises(InvalidVariable, match="no NOWHERE_SET"):
        plan(world, {"password": "env:NOWHERE_SET"})


def test_a_waiver_lets_a_breach_pass_and_is_shown(world: ClusterWorld) -> None:
    provision(world)
    today = datetime.now(UTC).date()
    waiver = {
        "rule": "stateful-kept",
        "resource": "terraform_data.store",
        "reason": "It holds nothing yet, as it was made today.",
        "approved_by": "owner",
        "granted": today,
        "expires": today + timedelta(days=1),
    }
    with pytest.raises(PolicyBreached):
        planning.require_policy(plan(world, {"name": "second"}))
    world.write_policy(POLICY, [waiver])
    planned = plan(world, {"name": "second"})
    assert (planned.breaches, planned.replaces) == ([], 1)
    assert "waived until" in planned.waived[0]
    assert provision(world, {"name": "second"}).done == ["terraform_data.store"] * 2  # deleted, created


def test_a_resource_that_goes_from_the_state_is_seen_by_drift(world: ClusterWorld) -> None:
    provision(world)
    assert drifting.as_found(REGION, drifting.find_drift(REGION, {}, {}, world.settings())).is_clean
    document = state(world)
    document["resources"] = [item for item in document["resources"] if item["name"] != "nodes"]
    document["serial"] += 1
    (world.folder / "terraform.tfstate").write_text(json.dumps(document))
    found = drifting.as_found(REGION, drifting.find_drift(REGION, {}, {}, world.settings()))
    assert [(row.address, row.remedy) for row in found.rows] == [("terraform_data.nodes", "create")]
    with pytest.raises(Drifted, match=r"terraform_data\.nodes"):
        drifting.require_clean(found)


# Install and smoke, on the test API server over HTTP


def applied() -> AppliedRegion:
    return AppliedRegion(region=REGION, digest="d", done=[], seconds=0)


async def in_thread(function: Any, *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


@needs_kubectl
async def test_the_operator_is_installed_and_smoke_waits_until_it_is_rolled_out(world: ClusterWorld) -> None:
    world.write_overlay("operator", PROJECT / "operator" / "manifests" / "default")
    async with ApiServer() as server:
        settings = world.settings(kubeconfig=server.kubeconfig(world.root / "kubeconfig"), ready_s=1)
        installed = await in_thread(installing.install_region, applied(), "kubectl", settings)
        assert installed.folders == [f"overlays/{REGION}/operator"]
        assert "deployment/flightpath-operator" in installed.objects
        with pytest.raises(NotReady, match="Deployment flightpath-operator is not ready"):
            await in_thread(installing.check_region, installed, settings)
        report_rolled_out(server)
        seen = await in_thread(installing.check_region, installed, settings)
        assert "CustomResourceDefinition trainingjobs.flightpath.dev is established" in seen
        assert "Deployment flightpath-system/flightpath-operator is rolled out" in seen


@pytest.mark.parametrize(
    ("install_by", "told"),
    [("helm", "kubectl | argocd | nobody"), ("kubectl", "nothing is to be installed in north")],
)
def test_what_cannot_be_installed_is_told(world: ClusterWorld, install_by: str, told: str) -> None:
    with pytest.raises(FlightpathError, match=re.escape(told)):
        installing.install_region(applied(), install_by, world.settings())


def test_a_cluster_that_terraform_does_not_put_out_cannot_be_reached(world: ClusterWorld) -> None:
    world.write_overlay("operator", PROJECT / "operator" / "manifests" / "default")
    provision(world)
    with pytest.raises(InstallFailed, match="expected an output `cluster`"):
        installing.install_region(applied(), "kubectl", world.settings())
