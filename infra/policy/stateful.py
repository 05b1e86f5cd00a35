"""Rule stateful-kept: nothing that holds data, or the key to it, is destroyed or replaced by an apply.

Whoever means it takes the resource out by a waiver with a reason, or by `destroy` with its own token.
"""

from collections.abc import Iterator
from typing import Final

from infra.planned import PlannedResource, PlannedWorld
from infra.policy.findings import Breach

RULE: Final = "stateful-kept"

STATEFUL: Final = frozenset(
    {
        "aws_db_instance",
        "aws_rds_cluster",
        "aws_dynamodb_table",
        "aws_ebs_volume",
        "aws_ecr_repository",
        "aws_efs_file_system",
        "aws_eks_cluster",
        "aws_kms_key",
        "aws_prometheus_workspace",
        "aws_route53_zone",
        "aws_s3_bucket",
        "aws_secretsmanager_secret",
        "google_container_cluster",
        "google_kms_crypto_key",
        "google_secret_manager_secret",
        "google_sql_database_instance",
        "google_storage_bucket",
        "azurerm_dns_zone",
        "azurerm_key_vault",
        "azurerm_key_vault_key",
        "azurerm_kubernetes_cluster",
        "azurerm_postgresql_flexible_server",
        "azurerm_storage_account",
        "azurerm_storage_container",
    }
)


def lost_state(world: PlannedWorld, more: frozenset[str] = frozenset()) -> Iterator[Breach]:
    for resource in world.resources:
        if resource.destroys and resource.type in STATEFUL | more:
            yield Breach(
                resource=resource.address, rule=RULE, got=_what(resource), expected="kept, or changed in place"
            )


def _what(resource: PlannedResource) -> str:
    if "create" not in resource.actions:
        return "destroyed"
    because = f" since {', '.join(resource.replaced_because)} cannot change" if resource.replaced_because else ""
    return f"replaced{because}"
