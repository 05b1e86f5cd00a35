output "host" {
  description = "Name of the server, known in its network."
  value       = azurerm_postgresql_flexible_server.this.fqdn
}

output "port" {
  description = "Port of the server."
  value       = 5432
}

output "database" {
  description = "Name of the database."
  value       = "flightpath"
}

output "secret_id" {
  description = "Secret of the vault that holds the password of the user flightpath; null for a replica."
  value       = try(azurerm_key_vault_secret.password[0].versionless_id, null)
}

output "replica_host" {
  description = "Name of this server where it is a replica, else null."
  value       = local.primary ? null : azurerm_postgresql_flexible_server.this.fqdn
}

output "server_id" {
  description = "What replica_of of another region takes."
  value       = azurerm_postgresql_flexible_server.this.id
}
