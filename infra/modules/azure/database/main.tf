# PostgreSQL for registry, Flyte and MLflow: private address, encrypted by our key, TLS only, a standby in another zone.

data "azurerm_client_config" "this" {}

locals {
  tags       = merge(var.tags, { module = "database" })
  primary    = var.replica_of == null
  vault_name = "${substr(replace(var.name, "-", ""), 0, 14)}d${substr(md5("${data.azurerm_client_config.this.subscription_id}/${var.name}"), 0, 8)}"
}

resource "azurerm_resource_group" "this" {
  name     = "${var.name}-database"
  location = var.region
  tags     = local.tags
}

resource "azurerm_private_dns_zone" "this" {
  name                = "${var.name}.private.postgres.database.azure.com"
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  name                  = var.name
  resource_group_name   = azurerm_resource_group.this.name
  private_dns_zone_name = azurerm_private_dns_zone.this.name
  virtual_network_id    = var.network_id
  tags                  = local.tags
}

resource "azurerm_postgresql_flexible_server" "this" {
  #checkov:skip=CKV2_AZURE_57:it lies in a subnet of its own and has no public address
  name                              = var.name
  resource_group_name               = azurerm_resource_group.this.name
  location                          = var.region
  version                           = "16"
  sku_name                          = var.size
  storage_mb                        = var.storage_gb * 1024
  auto_grow_enabled                 = true
  create_mode                       = local.primary ? "Default" : "Replica"
  source_server_id                  = var.replica_of
  delegated_subnet_id               = var.subnet_ids[0]
  private_dns_zone_id               = azurerm_private_dns_zone.this.id
  public_network_access_enabled     = false
  backup_retention_days             = 30
  geo_redundant_backup_enabled      = false
  administrator_login               = local.primary ? "flightpath" : null
  administrator_password_wo         = local.primary ? ephemeral.azurerm_key_vault_secret.password[0].value : null
  administrator_password_wo_version = local.primary ? 1 : null
  tags                              = local.tags

  dynamic "high_availability" {
    for_each = local.primary ? ["ZoneRedundant"] : []
    content {
      mode = high_availability.value
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  customer_managed_key {
    key_vault_key_id                  = azurerm_key_vault_key.this.id
    primary_user_assigned_identity_id = azurerm_user_assigned_identity.this.id
  }

  # Azure chooses the zones, and swaps them at a failover.
  lifecycle {
    ignore_changes = [zone, high_availability[0].standby_availability_zone]
  }

  depends_on = [azurerm_private_dns_zone_virtual_network_link.this, azurerm_role_assignment.key]
}

resource "azurerm_postgresql_flexible_server_configuration" "tls" {
  name      = "require_secure_transport"
  server_id = azurerm_postgresql_flexible_server.this.id
  value     = "on"
}

resource "azurerm_postgresql_flexible_server_database" "this" {
  count     = local.primary ? 1 : 0
  name      = "flightpath"
  server_id = azurerm_postgresql_flexible_server.this.id
  charset   = "UTF8"
  collation = "en_US.utf8"
}

resource "azurerm_management_lock" "this" {
  count      = var.protect ? 1 : 0
  name       = "protected"
  scope      = azurerm_postgresql_flexible_server.this.id
  lock_level = "CanNotDelete"
  notes      = "The database of ${var.name}: set protect to false first."
}
