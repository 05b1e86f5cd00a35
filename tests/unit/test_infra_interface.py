"""Modules of Google Cloud and Azure against their providers' schemas, and one interface over all clouds."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from infra.machines import MACHINES
from tests.fakes.provider_schemas.conformance import breaches, load_schema, read_hcl
from tests.fakes.terraform_text import dangling, read_folder

_ROOT = Path(__file__).resolve().parents[2]
_INFRA = _ROOT / "infra"
_PROVIDERS = {"gcp": "google", "azure": "azurerm"}
_ALL = ("name", "region", "tags")
_ROLE = "eks.amazonaws.com/role-arn"
_INTERFACE = {
    "network": (
        ("cidr", "zones", "peers"),
        ("network_id", "private_subnet_ids", "public_subnet_ids", "cidr"),
    ),
    "cluster": (
        (
            "network_id",
            "subnet_ids",
            "kubernetes_version",
            "node_groups",
            "private_endpoint",
            "admin_cidrs",
            "service_accounts",
        ),
        ("cluster_name", "endpoint", "ca_certificate", "oidc_issuer", "workload_identities", "node_group_names"),
    ),
    "storage": (("replica_region", "retention_days", "protect"), ("bucket", "url", "kms_key_id", "replica_bucket")),
    "database": (
        ("network_id", "subnet_ids", "size", "storage_gb", "replica_of", "protect"),
        ("host", "port", "database", "secret_id", "replica_host"),
    ),
    "dns": (("zone", "record", "endpoints", "policy"), ("fqdn", "health_check_ids", "record_names")),
}
_SOURCES = sorted(
    path
    for cloud in _PROVIDERS
    for path in (*(_INFRA / "modules" / cloud).rglob("*.tf"), *_INFRA.glob(f"environments/{cloud}-*/*.tf"))
    if ".terraform" not in path.parts
)
_FOLDERS = sorted({path.parent for path in _SOURCES})
"""Those of AWS are validated by terraform itself, with the provider."""


def _module(cloud: str, kind: str) -> Path:
    return _INFRA / "modules" / cloud / ("traffic" if (cloud, kind) == ("azure", "dns") else kind)


def _provider(path: Path) -> str:
    return _PROVIDERS["gcp" if "gcp" in str(path.relative_to(_INFRA)) else "azure"]


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: str(path.relative_to(_INFRA)))
def test_every_resource_block_and_argument_is_in_the_providers_schema(path: Path) -> None:
    assert breaches(path, load_schema(_provider(path))) == []


@pytest.mark.parametrize("folder", _FOLDERS, ids=lambda path: str(path.relative_to(_INFRA)))
def test_every_reference_and_every_argument_of_a_module_leads_somewhere(folder: Path) -> None:
    assert dangling(read_folder(folder)) == []


@pytest.mark.parametrize(
    ("module", "old", "new", "told"),
    [
        ("cluster/nodes.tf", "machine_type ", "machine_typ ", "machine_typ: no such argument"),
        ("cluster/nodes.tf", "    gvnic {", "    gvnics {", "gvnics: no such block"),
        ("cluster/nodes.tf", "count = each.value.gpus\n", "\n", "guest_accelerator: count must be there"),
        ("cluster/main.tf", 'resource "google_kms_key_ring"', 'resource "google_kms_keyring"', "no such type"),
        ("cluster/main.tf", "google_kms_key_ring.this.id", "google_kms_key_ring.this.uri", "no attribute uri"),
        ("database/main.tf", "    tier  ", "    tear  ", "settings: tier must be there"),
        ("storage/main.tf", "  versioning {\n    enabled = true\n  }", "  versioning = true", "versioning: is no arg"),
        ("storage/main.tf", "  versioning {", "  versioning {}\n  versioning {", "versioning stands 2 times"),
    ],
)
def test_the_check_sees_what_it_says_that_it_sees(tmp_path: Path, module: str, old: str, new: str, told: str) -> None:
    text = (_INFRA / "modules" / "gcp" / module).read_text()
    assert old in text
    path = tmp_path / "main.tf"
    path.write_text(text.replace(old, new))
    assert told in "\n".join(breaches(path, load_schema("google")))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("var.project", "var.projekt", "var.projekt is not declared"),
        ("module.storage.bucket]", "module.storage.buckets]", "module.storage has no output buckets"),
        ("  cidr   = ", "  cider  = ", "module.network has no input cider"),
        ("  zones  = ", "  # zones = ", "module.network lacks zones"),
        ("local.region", "local.regoin", "local.regoin is not declared"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    environment = tmp_path / "environments" / "gcp-europe-west"
    shutil.copytree(_INFRA / "environments" / "gcp-europe-west", environment)
    shutil.copytree(_INFRA / "modules" / "gcp", tmp_path / "modules" / "gcp")
    text = (environment / "main.tf").read_text()
    assert old in text
    (environment / "main.tf").write_text(text.replace(old, new))
    assert told in dangling(read_folder(environment))


@pytest.mark.parametrize("kind", sorted(_INTERFACE))
@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_a_kind_has_the_same_inputs_and_outputs_on_every_cloud(cloud: str, kind: str) -> None:
    folder = read_folder(_module(cloud, kind))
    inputs, outputs = _INTERFACE[kind]
    assert {*_ALL, *inputs} - folder.inputs.keys() == set()
    assert set(outputs) - folder.outputs.keys() == set()
    assert folder.required_inputs <= {*_ALL, *inputs}, "inputs of a cloud's own must have a default"


@pytest.mark.parametrize("kind", sorted(_INTERFACE))
def test_a_value_that_one_cloud_takes_has_the_same_shape_on_the_others(kind: str) -> None:
    types = {
        name: {str(read_folder(_module(cloud, kind)).inputs[name]["type"]) for cloud in ("aws", "gcp", "azure")}
        for name in (*_ALL, *_INTERFACE[kind][0])
    }
    assert {name: shapes for name, shapes in types.items() if len(shapes) > 1} == {}


@pytest.mark.parametrize("folder", _FOLDERS, ids=lambda path: str(path.relative_to(_INFRA)))
def test_inputs_are_typed_and_everything_is_described(folder: Path) -> None:
    read = read_folder(folder)
    assert [name for name, body in read.inputs.items() if not {"type", "description"} <= body.keys()] == []
    assert [name for name, body in read.outputs.items() if "description" not in body] == []


def test_the_machines_of_every_environment_are_known_with_the_gpus_that_they_say() -> None:
    seen = 0
    for environment in sorted((_INFRA / "environments").iterdir()):
        for call in read_folder(environment).calls.values():
            for name, group in call.get("node_groups", {}).items():
                machine = MACHINES[group["instance_type"].strip('"')]
                assert machine.gpus == group.get("gpus", 0), f"{environment.name}: {name}"
                seen += 1
    assert seen >= 12


def _words(text: str, pattern: str) -> set[str]:
    found = set(re.findall(pattern, text))
    assert found, pattern
    return found


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_nodes_have_the_labels_and_taints_that_the_operators_examples_ask_for(cloud: str) -> None:
    nodes = (_INFRA / "modules" / cloud / "cluster" / "nodes.tf").read_text()
    asked: set[str] = set()
    for path in (_ROOT / "examples" / "operator").glob("*.yaml"):
        asked |= set(re.findall(r"\{key: ([\w./-]+), operator", path.read_text()))
        asked |= set(re.findall(r"nodeSelector:\n\s+([\w./-]+):", path.read_text()))
    assert {"nvidia.com/gpu", "spot", "karpenter.sh/capacity-type"} <= asked
    assert {name for name in asked if f'"{name}"' not in nodes} == set()
    assert '"flightpath.dev/node-group"' in nodes


def test_rdma_groups_on_aws_are_what_the_operator_takes_for_efa() -> None:
    operator = (_ROOT / "operator/flightpath_operator/training/nccl.py").read_text()
    module = (_INFRA / "modules/aws/cluster/variables.tf").read_text()
    (families,) = _words(operator, r'_EFA_INSTANCES: Final = re.compile\(r"(.+)\\\."\)')
    assert f"^{families}" in module


def test_no_state_is_kept_without_lock_and_encryption() -> None:
    for environment in sorted((_INFRA / "environments").iterdir()):
        (settings,) = read_hcl(environment / "main.tf")["terraform"]
        (backend,) = settings["backend"]
        assert backend["s3"]["use_lockfile"] is True, environment.name
        assert backend["s3"]["encrypt"] is True, environment.name
        assert not {"bucket", "access_key", "secret_key"} & backend["s3"].keys(), environment.name


@pytest.mark.parametrize("region", ["us-east", "eu-west", "asia-pacific"])
def test_accounts_that_an_overlay_gives_a_role_of_aws_have_one(region: str) -> None:
    accounts = read_folder(_INFRA / "modules" / "aws" / "region").inputs["service_accounts"]["default"]
    roles = {json.loads(account["name"]): f"flightpath-{region}-{role}" for role, account in accounts.items()}
    identities = yaml.safe_load_all((_INFRA / "gitops/overlays" / region / "serving/identity.yaml").read_text())
    bound = {each["metadata"]["name"]: each["metadata"]["annotations"][_ROLE].split("role/")[1] for each in identities}
    assert bound.keys() == {"flightpath-region", "flightpath-backup"}
    assert bound.items() <= roles.items()
