# Keys of the store, one vault a region.

resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV2_AZURE_32:closed but for the subnets' service endpoints and named ranges
  #checkov:skip=CKV_AZURE_189:closed but for the subnets' service endpoints and named ranges
  for_each                      = local.places
  name                          = local.names[each.key]
  resource_group_name           = azurerm_resource_group.this[each.key].name
  location                      = each.value
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
    virtual_network_subnet_ids = var.subnet_ids
  }
}

resource "azurerm_role_assignment" "operator" {
  for_each             = local.places
  scope                = azurerm_key_vault.this[each.key].id
  role_definition_name = "Key Vault Crypto Officer"
  principal_id         = data.azurerm_client_config.this.object_id
}

resource "azurerm_role_assignment" "key" {
  for_each             = local.places
  scope                = azurerm_key_vault.this[each.key].id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_user_assigned_identity.this[each.key].principal_id
}

resource "azurerm_key_vault_key" "this" {
  #checkov:skip=CKV_AZURE_40:each version expires by the rotation policy
  for_each     = local.places
  name         = "blobs"
  key_vault_id = azurerm_key_vault.this[each.key].id
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
