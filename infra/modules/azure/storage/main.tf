# The artifact store: versioned, encrypted by our key, reached with identities only, copied to a second region.

data "azurerm_client_config" "this" {}

locals {
  tags   = merge(var.tags, { module = "storage" })
  places = merge({ primary = var.region }, var.replica_region == null ? {} : { replica = var.replica_region })
  # Names of accounts and vaults are shared by all of Azure's users, and have no hyphens.
  short = substr(replace(var.name, "-", ""), 0, 14)
  mark  = substr(md5("${data.azurerm_client_config.this.subscription_id}/${var.name}"), 0, 8)
  names = { primary = "${local.short}p${local.mark}", replica = "${local.short}r${local.mark}" }
}

resource "azurerm_resource_group" "this" {
  for_each = local.places
  name     = "${var.name}-storage-${each.key}"
  location = each.value
  tags     = local.tags
}

resource "azurerm_user_assigned_identity" "this" {
  for_each            = local.places
  name                = "${var.name}-storage-${each.key}"
  resource_group_name = azurerm_resource_group.this[each.key].name
  location            = each.value
  tags                = local.tags
}

resource "azurerm_storage_account" "this" {
  #checkov:skip=CKV2_AZURE_33:closed but for the subnets' service endpoints and named ranges
  #checkov:skip=CKV_AZURE_206:zones hold copies, and a second region does by object replication
  #checkov:skip=CKV_AZURE_33:no queue is in it
  #checkov:skip=CKV_AZURE_59:closed but for the subnets' service endpoints and named ranges
  for_each                          = local.places
  name                              = local.names[each.key]
  resource_group_name               = azurerm_resource_group.this[each.key].name
  location                          = each.value
  account_tier                      = "Standard"
  account_kind                      = "StorageV2"
  account_replication_type          = "ZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  shared_access_key_enabled         = false
  default_to_oauth_authentication   = true
  allow_nested_items_to_be_public   = false
  cross_tenant_replication_enabled  = false
  infrastructure_encryption_enabled = true
  tags                              = local.tags

  blob_properties {
    versioning_enabled  = true
    change_feed_enabled = true

    delete_retention_policy {
      days = var.retention_days
    }

    container_delete_retention_policy {
      days = var.retention_days
    }
  }

  network_rules {
    default_action             = "Deny"
    bypass                     = ["AzureServices"]
    ip_rules                   = var.admin_cidrs
    virtual_network_subnet_ids = var.subnet_ids
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this[each.key].id]
  }

  customer_managed_key {
    key_vault_key_id          = azurerm_key_vault_key.this[each.key].versionless_id
    user_assigned_identity_id = azurerm_user_assigned_identity.this[each.key].id
  }

  depends_on = [azurerm_role_assignment.key]
}

resource "azurerm_storage_container" "this" {
  #checkov:skip=CKV2_AZURE_21:the change feed keeps writes; reads are pieces of bundles by the million
  for_each              = local.places
  name                  = "artifacts"
  storage_account_id    = azurerm_storage_account.this[each.key].id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  for_each           = local.places
  storage_account_id = azurerm_storage_account.this[each.key].id

  rule {
    name    = "versions"
    enabled = true
    filters {
      blob_types = ["blockBlob"]
    }
    actions {
      version {
        delete_after_days_since_creation = var.retention_days
      }
    }
  }
}

resource "azurerm_storage_object_replication" "this" {
  count                          = var.replica_region == null ? 0 : 1
  source_storage_account_id      = azurerm_storage_account.this["primary"].id
  destination_storage_account_id = azurerm_storage_account.this["replica"].id

  rules {
    source_container_name      = azurerm_storage_container.this["primary"].name
    destination_container_name = azurerm_storage_container.this["replica"].name
    copy_blobs_created_after   = "Everything"
  }
}

resource "azurerm_management_lock" "this" {
  for_each   = var.protect ? local.places : {}
  name       = "protected"
  scope      = azurerm_storage_account.this[each.key].id
  lock_level = "CanNotDelete"
  notes      = "The artifact store of ${var.name}: set protect to false first."
}
