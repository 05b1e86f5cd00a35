"""Kubeconfigs made of Terraform's outputs, and what a values file of a run means."""

from pathlib import Path

import pytest

from infra.driver.errors import InvalidVariable, MissingBinary
from infra.policy import InvalidPolicy
from infra.terraform import Secret
from tasks.clusters import environments, kubectl
from tasks.clusters.errors import InstallFailed, UnknownEnvironment
from tasks.clusters.settings import ClusterSettings
from tests.fakes.terraform_text import read_folder
from workflows.launch_plans import drift_daily

CLUSTER = {"name": "flightpath-x", "endpoint": "https://api.example", "ca_certificate": "Q0E="}


@pytest.mark.parametrize(
    ("region", "command"),
    [
        ("us-east", ["aws", "eks", "get-token", "--cluster-name", "flightpath-x"]),
        ("gcp-europe-west", ["gke-gcloud-auth-plugin"]),
        ("azure-west-europe", ["kubelogin", "get-token"]),
    ],
)
def test_each_cloud_logs_in_by_its_own_program_and_no_credential_is_written(region: str, command: list[str]) -> None:
    made = kubectl.kubeconfig_of(CLUSTER, region)
    (user,) = made["users"]
    run = user["user"]["exec"]
    assert [run["command"], *run["args"]][: len(command)] == command
    assert set(user["user"]) == {"exec"}
    (cluster,) = made["clusters"]
    assert cluster["cluster"] == {"server": "https://api.example", "certificate-authority-data": "Q0E="}


def test_googles_endpoint_is_an_address_without_a_scheme() -> None:
    made = kubectl.kubeconfig_of({**CLUSTER, "endpoint": "10.0.0.2"}, "gcp-europe-west")
    assert made["clusters"][0]["cluster"]["server"] == "https://10.0.0.2"


def test_a_cluster_without_an_address_cannot_be_reached() -> None:
    with (
        pytest.raises(InstallFailed, match=r"the cluster of us-east cannot be reached, got no \['ca_certificate"),
        kubectl.reached({"name": "x", "endpoint": "y"}, region="us-east", kubeconfig=None),
    ):
        pass


def test_a_missing_kubectl_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingBinary, match="kubectl was not found"):
        kubectl.Kubectl(kubeconfig=tmp_path / "k").get("crd")


def test_values_are_json_where_they_can_be_and_secrets_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "swordfish")
    settings = ClusterSettings(variables={"cost_center": "research", "size": "1"})
    given = {"size": "3", "emails": '["a@example.com"]', "name": "us east", "password": "env:DB_PASSWORD"}
    found = environments.values(given, settings)
    assert found == {
        "cost_center": "research",
        "size": 3,
        "emails": ["a@example.com"],
        "name": "us east",
        "password": Secret("swordfish"),
    }
    with pytest.raises(InvalidVariable, match="no NOBODY_SET_THIS"):
        environments.values({"password": "env:NOBODY_SET_THIS"}, settings)


def test_settings_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIGHTPATH_INFRA_BACKEND", '{"bucket": "states"}')
    monkeypatch.setenv("FLIGHTPATH_INFRA_READY_S", "30")
    settings = ClusterSettings()
    assert (settings.backend, settings.ready_s) == ({"bucket": "states"}, 30)


def test_the_checkouts_own_environments_open_with_what_they_were_granted() -> None:
    settings = ClusterSettings()
    found = environments.names(settings)
    assert len(found) == 6
    for name in found:
        assert environments.open_environment(name, settings).policy.required_tags


def test_an_environment_without_a_policy_or_none_at_all_is_refused(tmp_path: Path) -> None:
    settings = ClusterSettings(environments=tmp_path)
    with pytest.raises(UnknownEnvironment, match=f"expected a folder in {tmp_path}"):
        environments.open_environment("north", settings)
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "main.tf").write_text("")
    with pytest.raises(InvalidPolicy, match=r"policy\.yaml cannot be read"):
        environments.open_environment("north", settings)


def test_drift_asks_the_audit_log_of_the_region_that_terraform_works_in() -> None:
    for name, launch in drift_daily.items():
        (call,) = read_folder(ClusterSettings().environments / name).calls.values()
        assert launch.fixed_inputs.literals == {}
        assert launch.saved_inputs["cloudtrail_region"] == call["region"].strip('"')
