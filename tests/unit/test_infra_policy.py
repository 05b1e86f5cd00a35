"""Every rule on plans of the real environments: they hold, and one changed attribute breaks exactly one rule."""

import copy
import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import policy
from infra.cost.plan import cost_of_plan
from infra.cost.prices import load_prices
from infra.planned import InvalidPlan
from infra.policy.exposure import is_world
from infra.policy.stateful import STATEFUL
from tests.fakes.cloud_plans import azure_west_europe, document, gcp_europe_west, planned
from tests.fakes.recorded_plans.recording import REGIONS, recorded

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "infra" / "environments"
PRICES = load_prices(ROOT / "examples" / "infra" / "prices.json")
TODAY = date(2026, 11, 20)
PLANS = {name: recorded(name) for name in REGIONS} | {
    "gcp-europe-west": gcp_europe_west(),
    "azure-west-europe": azure_west_europe(),
}
FREE = policy.Policy.model_validate(
    {"cost_ceiling_usd": {"least": 1e9, "most": 1e9}, "gpu_quota": {"on_demand": {}, "spot": {}}}
)


def granted(name: str) -> policy.Policy:
    return policy.load_policy(ENVIRONMENTS / name / "policy.yaml")


def judge(name: str, plan: Any, waivers: tuple[policy.Waiver, ...] = ()) -> policy.Verdict:
    return policy.check(plan, granted(name), PRICES, waivers, today=TODAY)


@pytest.mark.parametrize("name", sorted(PLANS))
def test_what_the_environments_plan_breaks_no_rule(name: str) -> None:
    assert len(PLANS[name]["resource_changes"]) >= 10
    assert judge(name, PLANS[name]).breaches == ()


def test_every_environment_was_granted_something() -> None:
    for environment in ENVIRONMENTS.iterdir():
        assert granted(environment.name).required_tags == ("team", "environment", "cost-center")


def changed(name: str, address: str, path: str, value: Any) -> Any:
    """The environment's plan with one attribute of one resource set to something else; None takes it away."""
    plan = copy.deepcopy(PLANS[name])
    (raw,) = (raw for raw in plan["resource_changes"] if raw["address"].endswith(address))
    *parents, last = path.split(".")
    for tree in (raw["change"]["after"], raw["change"]["after_unknown"]):
        place = tree
        for part in parents:
            place = place.get(part, {}) if isinstance(place, dict) else {}
            place = place[0] if isinstance(place, list) and place else place
        if isinstance(place, dict):
            place.pop(last, None)
            if tree is raw["change"]["after"] and value is not None:
                place[last] = value
    return plan


US, GCP, AZURE = "us-east", "gcp-europe-west", "azure-west-europe"
INSIDE, SECRET, TAGGED = "no-public-endpoint", "encryption", "mandatory-tags"


@pytest.mark.parametrize(
    ("name", "address", "path", "value", "rule"),
    [
        (US, "aws_eks_cluster.this", "vpc_config.endpoint_public_access", True, INSIDE),
        (US, "aws_db_instance.this", "publicly_accessible", True, INSIDE),
        (US, "aws_s3_bucket_public_access_block.this", "block_public_policy", False, INSIDE),
        (US, "aws_s3_bucket_public_access_block.this", "restrict_public_buckets", None, INSIDE),
        (US, 'aws_subnet.private["us-east-1a"]', "map_public_ip_on_launch", True, INSIDE),
        (US, 'aws_launch_template.this["training"]', "network_interfaces.associate_public_ip_address", "true", INSIDE),
        (US, 'aws_vpc_security_group_ingress_rule.groups["cluster"]', "cidr_ipv4", "0.0.0.0/0", INSIDE),
        (US, "aws_vpc_security_group_ingress_rule.efa[0]", "cidr_ipv6", "::/0", INSIDE),
        (US, "aws_db_instance.this", "storage_encrypted", None, SECRET),
        (US, "aws_eks_cluster.this", "encryption_config", [], SECRET),
        (US, 'aws_launch_template.this["spot"]', "block_device_mappings.ebs.encrypted", "false", SECRET),
        (US, 'aws_ecr_repository.this["flightpath/agent"]', "encryption_configuration", None, SECRET),
        (US, "storage.aws_kms_key.this", "enable_key_rotation", False, SECRET),
        (US, "storage.aws_s3_bucket.this", "tags_all", {"team": "x", "environment": "y"}, TAGGED),
        (US, "network.aws_vpc.this", "tags_all", {"team": "x", "environment": "", "cost-center": "z"}, TAGGED),
        (GCP, "google_container_cluster.this", "private_cluster_config.enable_private_endpoint", False, INSIDE),
        (GCP, "google_sql_database_instance.this", "settings.ip_configuration.ipv4_enabled", True, INSIDE),
        (GCP, "google_storage_bucket.this", "public_access_prevention", "inherited", INSIDE),
        (GCP, "google_compute_firewall.internal", "source_ranges", ["10.0.0.0/8", "0.0.0.0/0"], INSIDE),
        (GCP, "google_storage_bucket_iam_member.this", "member", "allUsers", INSIDE),
        (GCP, "google_container_cluster.this", "database_encryption.state", "DECRYPTED", SECRET),
        (GCP, "google_sql_database_instance.this", "encryption_key_name", None, SECRET),
        (GCP, "google_storage_bucket.this", "encryption", None, SECRET),
        (GCP, "google_container_node_pool.spot", "node_config.resource_labels", {}, TAGGED),
        (GCP, "google_sql_database_instance.this", "settings.user_labels", {"team": "x"}, TAGGED),
        (AZURE, "azurerm_kubernetes_cluster.this", "private_cluster_enabled", False, INSIDE),
        (AZURE, "azurerm_storage_account.this", "network_rules.default_action", "Allow", INSIDE),
        (AZURE, "azurerm_postgresql_flexible_server.this", "public_network_access_enabled", None, INSIDE),
        (AZURE, "azurerm_network_security_group.public", "security_rule.destination_port_range", "22", INSIDE),
        (AZURE, "azurerm_network_security_group.public", "security_rule.destination_port_range", "*", INSIDE),
        (AZURE, "azurerm_network_security_group.public", "security_rule.destination_port_range", "440-443", INSIDE),
        (AZURE, "azurerm_storage_account.this", "min_tls_version", "TLS1_0", SECRET),
        (AZURE, "azurerm_postgresql_flexible_server.this", "customer_managed_key", [], SECRET),
        (AZURE, "azurerm_key_vault.this", "tags", None, None),
        (AZURE, "azurerm_key_vault.this", "tags", {}, TAGGED),
    ],
)
def test_one_changed_attribute_breaks_one_rule_and_names_the_resource(
    name: str, address: str, path: str, value: Any, rule: str | None
) -> None:
    verdict = judge(name, changed(name, address, path, value))
    found = {(breach.rule, breach.resource.endswith(address)) for breach in verdict.breaches}
    assert found == ({(rule, True)} if rule else set())
    assert verdict.holds == (rule is None)
    if rule:
        assert re.fullmatch(rf"{rule} at .*: got .*, expected .*", str(verdict.breaches[0]))


@pytest.mark.parametrize(
    ("companion", "rule"),
    [
        ("aws_s3_bucket_public_access_block.this", INSIDE),
        ("aws_s3_bucket_server_side_encryption_configuration.this", SECRET),
    ],
)
def test_a_bucket_whose_setting_is_not_there_breaks_the_rule(companion: str, rule: str) -> None:
    plan = copy.deepcopy(PLANS[US])
    plan["resource_changes"] = [r for r in plan["resource_changes"] if not r["address"].endswith(companion)]
    assert [(breach.rule, breach.resource.rsplit(".", 2)[1]) for breach in judge(US, plan).breaches] == [
        (rule, "aws_s3_bucket")
    ]


def test_a_key_that_only_the_apply_knows_is_a_key_and_one_that_nobody_sets_is_none() -> None:
    group = planned(
        "aws_cloudwatch_log_group.a", {"tags_all": dict.fromkeys(FREE.required_tags, "x")}, unknown={"kms_key_id": True}
    )
    keyed = document(group, set_={"aws_cloudwatch_log_group.a": {"kms_key_id": {"references": ["aws_kms_key.k"]}}})
    assert policy.check(keyed, FREE, PRICES, today=TODAY).holds
    (breach,) = policy.check(document(group), FREE, PRICES, today=TODAY).breaches
    assert (breach.rule, breach.got) == (SECRET, "kms_key_id not set")


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": ["arn:a", "*"]}])
def test_a_policy_for_everybody_is_public_unless_a_condition_limits_it(principal: Any) -> None:
    statement = {"Sid": "All", "Effect": "Allow", "Action": "s3:GetObject", "Principal": principal}
    for extra, count in (({}, 1), ({"Condition": {"StringEquals": {}}}, 0), ({"Effect": "Deny"}, 0)):
        text = json.dumps({"Statement": [{**statement, **extra}]})
        plan = document(planned("aws_s3_bucket_policy.p", {"policy": text}))
        assert len(policy.check(plan, FREE, PRICES, today=TODAY).breaches) == count


@pytest.mark.parametrize(
    ("actions", "got"),
    [
        (("delete",), "destroyed"),
        (("delete", "create"), "replaced since identifier cannot change"),
        (("create", "delete"), "replaced since identifier cannot change"),
    ],
)
@pytest.mark.parametrize("type_", ["aws_db_instance", "google_storage_bucket", "azurerm_key_vault_key"])
def test_what_holds_data_is_not_destroyed(type_: str, actions: tuple[str, ...], got: str) -> None:
    because = ("identifier",) if len(actions) == 2 else ()
    plan = document(planned(f"module.x.{type_}.this", None, actions=actions, before={}, because=because))
    verdict = policy.check(plan, FREE, PRICES, today=TODAY)
    assert [(breach.resource, breach.got) for breach in verdict.breaches if breach.rule == "stateful-kept"] == [
        (f"module.x.{type_}.this", got)
    ]


PLACE = {"location": "westeurope", "region": "europe-west4"}


@settings(deadline=None)
@given(
    type_=st.sampled_from(sorted(STATEFUL)),
    actions=st.sampled_from([("no-op",), ("update",), ("create",), ("forget",)]),
)
def test_what_is_kept_in_any_way_is_not_lost(type_: str, actions: tuple[str, ...]) -> None:
    plan = document(planned(f"{type_}.this", PLACE, actions=actions, before={}))
    verdict = policy.check(plan, FREE, PRICES, today=TODAY)
    assert "stateful-kept" not in {breach.rule for breach in verdict.breaches}


@settings(deadline=None)
@given(st.ip_addresses(), st.integers(0, 128))
def test_a_range_is_the_internet_only_if_it_is_large_and_not_ours(address: Any, length: int) -> None:
    length = min(length, address.max_prefixlen)
    world = is_world(f"{address}/{length}")
    ours = address.version == 6 and length >= 7 and address.packed[0] in (0xFC, 0xFD)
    assert world == (not ours and length < (8 if address.version == 4 else 16))


def group(name: str, size: str, most: int, spot: bool = False) -> Any:
    scaling = [{"min_size": 0, "max_size": most}]
    tags = dict.fromkeys(FREE.required_tags, "x")
    capacity = "SPOT" if spot else "ON_DEMAND"
    after = {"instance_types": [size], "scaling_config": scaling, "capacity_type": capacity, "tags_all": tags}
    return planned(f"aws_eks_node_group.{name}", after)


def with_quota(on_demand: dict[str, int], spot: dict[str, int]) -> policy.Policy:
    return FREE.model_copy(update={"gpu_quota": policy.settings.GpuQuota(on_demand=on_demand, spot=spot)})


@settings(deadline=None)
@given(
    most=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    quota=st.integers(0, 80),
    spot=st.booleans(),
)
def test_groups_together_stay_within_the_quota_of_their_model(most: list[int], quota: int, spot: bool) -> None:
    plan = document(*(group(f"g{n}", "p4d.24xlarge", count, spot) for n, count in enumerate(most)))
    limits = ({}, {"a100": quota}) if spot else ({"a100": quota}, {})
    breaches = [
        b for b in policy.check(plan, with_quota(*limits), PRICES, today=TODAY).breaches if b.rule == "gpu-quota"
    ]
    assert bool(breaches) == (8 * sum(most) > quota)
    for breach in breaches:
        assert breach.got.startswith(f"{8 * sum(most)} ")


def test_a_gpu_machine_that_nobody_knows_is_refused_and_not_counted_as_none() -> None:
    plan = document(group("new", "p9.48xlarge", 1))
    found = {breach.rule: breach for breach in policy.check(plan, FREE, PRICES, today=TODAY).breaches}
    assert found["gpu-quota"].got == "machine p9.48xlarge"
    assert "no price for instance p9.48xlarge" in found["cost-ceiling"].got


@settings(max_examples=25, deadline=None)
@given(least=st.floats(0, 5000), most=st.floats(0, 100_000))
def test_the_ceiling_blocks_exactly_what_is_above_it(least: float, most: float) -> None:
    cost = cost_of_plan(PLANS[US], PRICES)
    ceiling = policy.settings.CostCeiling(least=least, most=most)
    verdict = policy.check(PLANS[US], granted(US).model_copy(update={"cost_ceiling_usd": ceiling}), PRICES, today=TODAY)
    assert len(verdict.breaches) == (cost.least_usd > least) + (cost.most_usd > most)
    assert {breach.rule for breach in verdict.breaches} <= {"cost-ceiling"}


def test_another_document_than_a_plan_is_refused() -> None:
    with pytest.raises(InvalidPlan, match="no plan of Terraform"):
        policy.check({"values": {}}, FREE, PRICES, today=TODAY)


# Waivers

WAIVER: dict[str, Any] = {
    "rule": INSIDE,
    "resource": "module.region.module.cluster.aws_eks_cluster.this",
    "reason": "Runners have no way into the network before May.",
    "approved_by": "security",
    "granted": TODAY - timedelta(days=10),
    "expires": TODAY + timedelta(days=10),
}
OPEN = changed(US, "aws_eks_cluster.this", "vpc_config.endpoint_public_access", True)


def test_a_waiver_lets_its_breach_pass_and_is_told_with_it() -> None:
    verdict = judge(US, OPEN, (policy.Waiver(**WAIVER),))
    assert verdict.holds
    ((breach, waiver),) = verdict.waived
    assert (breach.rule, waiver.approved_by) == (INSIDE, "security")
    assert verdict.unused == ()


def test_a_waiver_covers_neither_another_rule_nor_another_resource_and_is_told_as_unused() -> None:
    others = (
        policy.Waiver(**{**WAIVER, "rule": SECRET}),
        policy.Waiver(**{**WAIVER, "resource": "module.other.*"}),
    )
    verdict = judge(US, OPEN, others)
    assert len(verdict.breaches) == 1
    assert verdict.unused == others


def test_an_expired_waiver_blocks_again_and_says_so() -> None:
    old = policy.Waiver(**{**WAIVER, "expires": TODAY - timedelta(days=1)})
    verdict = judge(US, OPEN, (old,))
    assert (len(verdict.breaches), verdict.expired) == (1, (old,))
    assert judge(US, OPEN, (policy.Waiver(**{**WAIVER, "expires": TODAY}),)).holds


def test_an_index_in_an_address_is_no_pattern() -> None:
    plan = changed(US, 'aws_subnet.private["us-east-1a"]', "map_public_ip_on_launch", True)
    exact = 'module.region.module.network.aws_subnet.private["us-east-1a"]'
    assert judge(US, plan, (policy.Waiver(**{**WAIVER, "resource": exact}),)).holds
    assert not judge(US, plan, (policy.Waiver(**{**WAIVER, "resource": exact.replace("1a", "1b")}),)).holds


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reason": "later"}, "reason .* too short"),
        ({"approved_by": " "}, "approved_by .* is empty"),
        ({"resource": "*"}, "is everything"),
        ({"expires": TODAY + timedelta(days=400)}, "the end .* is wrong"),
        ({"expires": TODAY - timedelta(days=11)}, "the end .* is wrong"),
    ],
)
def test_a_waiver_without_reason_owner_place_or_end_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(policy.InvalidWaiver, match=told):
        policy.Waiver(**{**WAIVER, **change})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("waivers: 3", "holds no waivers"),
        ("waivers: [{rule: x}]", "waiver 0 is wrong"),
        ("waivers: [{rule: nope, resource: a, reason: b, approved_by: c, granted: 1, expires: 2}]", "unknown rule"),
        ("waivers: [{rule: encryption, resource: a, reason: b, approved_by: c, granted: 1, expires: 2}]", "no day"),
        ("]", "cannot be read"),
    ],
)
def test_a_file_of_waivers_that_is_wrong_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text(text)
    with pytest.raises((policy.InvalidWaiver, policy.InvalidPolicy), match=told):
        policy.load_waivers(path, policy.rule_names())


def test_waivers_are_read_with_their_days(tmp_path: Path) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text("waivers:\n- " + "\n  ".join(f"{name}: {value}" for name, value in WAIVER.items()) + "\n")
    assert policy.load_waivers(path, policy.rule_names()) == (policy.Waiver(**WAIVER),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema_version: 2", "schema_version"),
        ("schema_version: 1\ngpu_quota: {}", "cost_ceiling_usd .*Field required"),
        ("schema_version: 1\ngpu_quota: {}\ncost_ceiling_usd: {least: -1, most: 2}", "cost_ceiling_usd.least"),
        ("schema_version: 1\ngpu_quota: {}\ncost_ceiling_usd: {least: 1, most: 2}\nextra: 1", "extra of"),
        ("- 1", "a mapping"),
    ],
)
def test_a_policy_file_that_is_wrong_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(policy.InvalidPolicy, match=told):
        policy.load_policy(path)
