"""Documents in the form of a plan, by hand: of single resources, and of the environments on Google Cloud and Azure.

Their providers are not on this machine, so no plan of theirs exists here. What they hold is read from the environments'
own values and the modules' defaults; the attributes are those of the modules. It is a schema, not a recording.
"""

from pathlib import Path
from typing import Any, Final

from tests.fakes.terraform_text import read_folder

INFRA: Final = Path(__file__).resolve().parents[2] / "infra"
TAGS: Final = {"team": "ml-platform", "environment": "production", "cost-center": "research"}


def planned(
    address: str,
    after: dict[str, Any] | None = None,
    *,
    actions: tuple[str, ...] = ("create",),
    unknown: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    because: tuple[str, ...] = (),
) -> dict[str, Any]:
    """One entry of `resource_changes`."""
    change = {"actions": list(actions), "before": before, "after": after, "after_unknown": unknown or {}}
    change["replace_paths"] = [[name] for name in because]
    *module, type_, _name = address.split(".")
    return {
        "address": address,
        "module_address": ".".join(module),
        "mode": "managed",
        "type": type_,
        "change": change,
    }


def document(*changes: dict[str, Any], aws_region: str = "us-east-1", set_: dict[str, Any] | None = None) -> Any:
    """`set_`: expressions of the configuration, by address."""
    resources = [{"address": address, "expressions": expressions} for address, expressions in (set_ or {}).items()]
    provider = {"aws": {"expressions": {"region": {"constant_value": aws_region}}}}
    return {
        "format_version": "1.2",
        "resource_changes": list(changes),
        "configuration": {"provider_config": provider, "root_module": {"resources": resources, "module_calls": {}}},
    }


def gcp_europe_west() -> Any:
    region, default = "europe-west4", _defaults("gcp", "database")
    cluster = {
        "location": region,
        "resource_labels": TAGS,
        "private_cluster_config": [{"enable_private_endpoint": True, "enable_private_nodes": True}],
        "database_encryption": [{"state": "ENCRYPTED"}],
    }
    database = {
        "region": region,
        "encryption_key_name": "key",
        "settings": [
            {
                "tier": default["size"],
                "disk_type": "PD_SSD",
                "disk_size": default["storage_gb"],
                "availability_type": "REGIONAL",
                "user_labels": TAGS,
                "ip_configuration": [{"ipv4_enabled": False, "ssl_mode": "ENCRYPTED_ONLY"}],
            }
        ],
    }
    bucket = {
        "location": "EUROPE-WEST4",
        "labels": TAGS,
        "public_access_prevention": "enforced",
        "encryption": [{"default_kms_key_name": "key"}],
    }
    firewall = {"direction": "INGRESS", "source_ranges": ["10.48.0.0/17"], "allow": [{"protocol": "tcp", "ports": []}]}
    return document(
        planned("google_container_cluster.this", cluster),
        *(planned(f"google_container_node_pool.{name}", _gke_pool(region, group)) for name, group in _groups("gcp")),
        planned("google_sql_database_instance.this", database),
        planned("google_storage_bucket.this", bucket),
        planned("google_kms_crypto_key.this", {"rotation_period": "7776000s", "labels": TAGS}),
        planned("google_compute_router_nat.this", {"region": region}),
        planned("google_compute_firewall.internal", firewall),
        planned("google_storage_bucket_iam_member.this", {"member": "serviceAccount:agent@project"}),
    )


def azure_west_europe() -> Any:
    region, default = "westeurope", _defaults("azure", "database")
    (first_name, first), *others = _groups("azure")
    assert first_name == "system"
    cluster = {
        "location": region,
        "tags": TAGS,
        "private_cluster_enabled": True,
        "key_management_service": [{"key_vault_key_id": "key"}],
        "default_node_pool": [{**_aks_pool(first), "host_encryption_enabled": True, "os_disk_size_gb": 128}],
    }
    database = {
        "location": region,
        "tags": TAGS,
        "sku_name": default["size"],
        "storage_mb": default["storage_gb"] * 1024,
        "high_availability": [{"mode": "ZoneRedundant"}],
        "public_network_access_enabled": False,
        "customer_managed_key": [{"key_vault_key_id": "key"}],
    }
    account = {
        "location": region,
        "tags": TAGS,
        "allow_nested_items_to_be_public": False,
        "https_traffic_only_enabled": True,
        "min_tls_version": "TLS1_2",
        "network_rules": [{"default_action": "Deny"}],
        "customer_managed_key": [{"key_vault_key_id": "key"}],
    }
    https = {"access": "Allow", "direction": "Inbound", "source_address_prefix": "Internet"}
    public = {"tags": TAGS, "security_rule": [{**https, "destination_port_range": "443"}]}
    return document(
        planned("azurerm_kubernetes_cluster.this", cluster),
        *(
            planned(
                f"azurerm_kubernetes_cluster_node_pool.{name}",
                {**_aks_pool(group), "tags": TAGS, "host_encryption_enabled": True, "os_disk_size_gb": 256},
            )
            for name, group in others
        ),
        planned("azurerm_postgresql_flexible_server.this", database),
        planned("azurerm_storage_account.this", account),
        planned("azurerm_storage_container.this", {"container_access_type": "private"}),
        planned("azurerm_key_vault.this", {"tags": TAGS, "network_acls": [{"default_action": "Deny"}]}),
        planned("azurerm_network_security_group.public", public),
        planned("azurerm_nat_gateway.this", {"location": region, "tags": TAGS}),
    )


def _groups(cloud: str) -> list[tuple[str, dict[str, Any]]]:
    (environment,) = (INFRA / "environments").glob(f"{cloud}-*")
    groups = read_folder(environment).calls["cluster"]["node_groups"]
    return [(name, group) for name, group in groups.items() if name != "__is_block__"]


def _defaults(cloud: str, kind: str) -> dict[str, Any]:
    inputs = read_folder(INFRA / "modules" / cloud / kind).inputs
    values = {name: body["default"] for name, body in inputs.items() if "default" in body}
    return {name: value.strip('"') if isinstance(value, str) else value for name, value in values.items()}


def _gke_pool(region: str, group: dict[str, Any]) -> dict[str, Any]:
    node = {
        "machine_type": group["instance_type"].strip('"'),
        "spot": group.get("spot", False),
        "disk_type": "pd-balanced",
        "disk_size_gb": 200,
        "resource_labels": TAGS,
    }
    scaling = {"total_min_node_count": group["min"], "total_max_node_count": group["max"]}
    return {"location": region, "autoscaling": [scaling], "node_config": [node]}


def _aks_pool(group: dict[str, Any]) -> dict[str, Any]:
    priority = "Spot" if group.get("spot") else "Regular"
    size = group["instance_type"].strip('"')
    return {"vm_size": size, "min_count": group["min"], "max_count": group["max"], "priority": priority}
