"""Rule encryption: what is stored is encrypted by a key of ours that turns, and what leaves goes over TLS."""

from collections.abc import Iterator
from typing import Final

from infra.planned import PlannedWorld
from infra.policy.findings import Breach, Must, broken, is_set, is_true, one_of, without_companion

RULE: Final = "encryption"

_KEY: Final = "a key of ours"
_SSE: Final = "aws_s3_bucket_server_side_encryption_configuration"
_KMS: Final = one_of("aws:kms", "aws:kms:dsse")
_TLS: Final = one_of("TLS1_2", "TLS1_3")
_SSL: Final = one_of("ENCRYPTED_ONLY", "TRUSTED_CLIENT_CERTIFICATE_REQUIRED")

_TABLE: Final = (
    Must(type="aws_eks_cluster", path="encryption_config.provider.key_arn", accepts=is_set, expected=_KEY),
    Must(type="aws_eks_cluster", path="encryption_config.resources", accepts=one_of("secrets"), expected="secrets"),
    Must(type="aws_launch_template", path="block_device_mappings.ebs.encrypted", accepts=is_true, expected="true"),
    Must(type="aws_instance", path="root_block_device.encrypted", accepts=is_true, expected="true"),
    Must(type="aws_ebs_volume", path="encrypted", accepts=is_true, expected="true"),
    Must(type="aws_efs_file_system", path="encrypted", accepts=is_true, expected="true"),
    Must(type="aws_db_instance", path="storage_encrypted", accepts=is_true, expected="true"),
    Must(type="aws_db_instance", path="kms_key_id", accepts=is_set, expected=_KEY),
    Must(type="aws_rds_cluster", path="storage_encrypted", accepts=is_true, expected="true"),
    Must(
        type=_SSE,
        path="rule.apply_server_side_encryption_by_default.sse_algorithm",
        accepts=_KMS,
        expected="aws:kms",
    ),
    Must(
        type="aws_ecr_repository",
        path="encryption_configuration.encryption_type",
        accepts=one_of("KMS", "KMS_DSSE"),
        expected="KMS",
    ),
    Must(type="aws_sns_topic", path="kms_master_key_id", accepts=is_set, expected=_KEY),
    Must(type="aws_sqs_queue", path="kms_master_key_id", accepts=is_set, expected=_KEY),
    Must(type="aws_dynamodb_table", path="server_side_encryption.kms_key_arn", accepts=is_set, expected=_KEY),
    Must(type="aws_secretsmanager_secret", path="kms_key_id", accepts=is_set, expected=_KEY),
    Must(type="aws_cloudwatch_log_group", path="kms_key_id", accepts=is_set, expected=_KEY),
    Must(type="aws_prometheus_workspace", path="kms_key_arn", accepts=is_set, expected=_KEY),
    Must(type="aws_kms_key", path="enable_key_rotation", accepts=is_true, expected="true"),
    Must(
        type="google_container_cluster",
        path="database_encryption.state",
        accepts=one_of("ENCRYPTED"),
        expected="ENCRYPTED",
    ),
    Must(type="google_sql_database_instance", path="encryption_key_name", accepts=is_set, expected=_KEY),
    Must(
        type="google_sql_database_instance",
        path="settings.ip_configuration.ssl_mode",
        accepts=_SSL,
        expected="ENCRYPTED_ONLY",
    ),
    Must(type="google_storage_bucket", path="encryption.default_kms_key_name", accepts=is_set, expected=_KEY),
    Must(type="google_kms_crypto_key", path="rotation_period", accepts=is_set, expected="a period"),
    Must(type="azurerm_storage_account", path="https_traffic_only_enabled", accepts=is_true, expected="true"),
    Must(type="azurerm_storage_account", path="min_tls_version", accepts=_TLS, expected="TLS1_2"),
    Must(
        type="azurerm_storage_account",
        path="customer_managed_key.key_vault_key_id",
        accepts=is_set,
        expected=_KEY,
    ),
    Must(
        type="azurerm_postgresql_flexible_server",
        path="customer_managed_key.key_vault_key_id",
        accepts=is_set,
        expected=_KEY,
    ),
    Must(
        type="azurerm_kubernetes_cluster",
        path="key_management_service.key_vault_key_id",
        accepts=is_set,
        expected=_KEY,
    ),
    Must(
        type="azurerm_kubernetes_cluster",
        path="default_node_pool.host_encryption_enabled",
        accepts=is_true,
        expected="true",
    ),
    Must(
        type="azurerm_kubernetes_cluster_node_pool",
        path="host_encryption_enabled",
        accepts=is_true,
        expected="true",
    ),
)


def unencrypted(world: PlannedWorld) -> Iterator[Breach]:
    yield from broken(world, RULE, _TABLE)
    yield from without_companion(world, RULE, "aws_s3_bucket", _SSE, "bucket")
