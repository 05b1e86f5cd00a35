output "bucket" {
  description = "Name of the container."
  value       = azurerm_storage_container.this["primary"].name
}

output "url" {
  description = "The artifact store's address, as FLIGHTPATH_STORE takes it."
  value       = "abfs://${azurerm_storage_container.this["primary"].name}@${azurerm_storage_account.this["primary"].name}.dfs.core.windows.net"
}

output "kms_key_id" {
  description = "Key of the blobs."
  value       = azurerm_key_vault_key.this["primary"].id
}

output "replica_bucket" {
  description = "Account and container of the replica; null without one."
  value       = try("${azurerm_storage_account.this["replica"].name}/${azurerm_storage_container.this["replica"].name}", null)
}

output "account_id" {
  description = "The storage account: what bucket_ids of the cluster module takes."
  value       = azurerm_storage_account.this["primary"].id
}
