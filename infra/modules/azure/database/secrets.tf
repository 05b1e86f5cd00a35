# Key and password. The password is made here, kept in the vault, and in no state and no plan: it passes through
# ephemeral values and write-only arguments alone. The server gets what the vault holds.

resource "azurerm_user_assigned_identity" "this" {
  name                = "${var.name}-database"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  tags                = local.tags
}

resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV2_AZURE_32:closed but for the subnets' service endpoints and named ranges
  #checkov:skip=CKV_AZURE_189:closed but for the subnets' service endpoints and named ranges
  name                          = local.vault_name
  resource_group_name           = azurerm_resource_group.this.name
  location                      = var.region
  tenant_id                     = data.azurerm_client_config.this.tenant_id
  sku_name                      = "premium"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  soft_delete_retention_days    = 90
  public_network_access_enabled = true
  tags                          = local.tags

  network_acls {
    default_action             = "Deny"
    bypass                     = "AzureServices"
    ip_rules                   = var.admin_cidrs
    virtual_network_subnet_ids = var.secret_subnet_ids
  }
}

resource "azurerm_role_assignment" "operator" {
  for_each             = toset(["Key Vault Crypto Officer", "Key Vault Secrets Officer"])
  scope                = azurerm_key_vault.this.id
  role_definition_name = each.key
  principal_id         = data.azurerm_client_config.this.object_id
}

resource "azurerm_role_assignment" "key" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
}

resource "azurerm_key_vault_key" "this" {
  #checkov:skip=CKV_AZURE_40:each version expires by the rotation policy
  name         = "database"
  key_vault_id = azurerm_key_vault.this.id
  key_type     = "RSA-HSM"
  key_size     = 3072
  key_opts     = ["unwrapKey", "wrapKey"]
  tags         = local.tags

  rotation_policy {
    expire_after = "P1Y"
    automatic {
      time_before_expiry = "P30D"
    }
  }

  depends_on = [azurerm_role_assignment.operator]
}

ephemeral "random_password" "this" {
  count   = local.primary ? 1 : 0
  length  = 40
  special = false
}

resource "azurerm_key_vault_secret" "password" {
  count            = local.primary ? 1 : 0
  name             = "database-password"
  key_vault_id     = azurerm_key_vault.this.id
  content_type     = "password"
  value_wo         = ephemeral.random_password.this[0].result
  value_wo_version = 1
  tags             = local.tags
  depends_on       = [azurerm_role_assignment.operator]
}

ephemeral "azurerm_key_vault_secret" "password" {
  count        = local.primary ? 1 : 0
  name         = azurerm_key_vault_secret.password[0].name
  key_vault_id = azurerm_key_vault.this.id
}
