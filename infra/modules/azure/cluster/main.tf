# AKS: a private control plane, secrets encrypted by our key, no local accounts, identities of pods in place of nodes'.

data "azurerm_client_config" "this" {}

locals {
  tags = merge(var.tags, { module = "cluster" })
  # Vault names are shared by all of Azure's users.
  vault_name = "${substr(replace(var.name, "-", ""), 0, 14)}k${substr(md5("${data.azurerm_client_config.this.subscription_id}/${var.name}"), 0, 8)}"
}

resource "azurerm_resource_group" "this" {
  name     = "${var.name}-cluster"
  location = var.region
  tags     = local.tags
}

resource "azurerm_user_assigned_identity" "this" {
  name                = "${var.name}-cluster"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  tags                = local.tags
}

resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV2_AZURE_32:closed but for the subnets' service endpoints and named ranges
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
    virtual_network_subnet_ids = var.subnet_ids
  }
}

resource "azurerm_role_assignment" "operator" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Crypto Officer"
  principal_id         = data.azurerm_client_config.this.object_id
}

resource "azurerm_role_assignment" "key" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Crypto Service Encryption User"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
}

resource "azurerm_role_assignment" "network" {
  scope                = var.network_id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
}

resource "azurerm_key_vault_key" "this" {
  #checkov:skip=CKV_AZURE_40:each version expires by the rotation policy
  name         = "secrets"
  key_vault_id = azurerm_key_vault.this.id
  key_type     = "RSA-HSM"
  key_size     = 3072
  key_opts     = ["decrypt", "encrypt", "unwrapKey", "wrapKey"]
  tags         = local.tags

  rotation_policy {
    expire_after = "P1Y"
    automatic {
      time_before_expiry = "P30D"
    }
  }

  depends_on = [azurerm_role_assignment.operator]
}

resource "azurerm_kubernetes_cluster" "this" {
  #checkov:skip=CKV_AZURE_117:hosts are encrypted, caches included
  #checkov:skip=CKV_AZURE_168:an overlay network takes 250 pods a node by default
  #checkov:skip=CKV_AZURE_226:sizes without GPUs have no local disk for it
  #checkov:skip=CKV_AZURE_232:the platform's own services run there too
  #checkov:skip=CKV_AZURE_4:metrics and logs are infra/observability's
  name                              = var.name
  resource_group_name               = azurerm_resource_group.this.name
  location                          = var.region
  dns_prefix                        = var.name
  kubernetes_version                = var.kubernetes_version
  sku_tier                          = "Standard"
  private_cluster_enabled           = var.private_endpoint
  local_account_disabled            = true
  role_based_access_control_enabled = true
  oidc_issuer_enabled               = true
  workload_identity_enabled         = true
  azure_policy_enabled              = true
  automatic_upgrade_channel         = "patch"
  node_os_upgrade_channel           = "NodeImage"
  image_cleaner_enabled             = true
  image_cleaner_interval_hours      = 168
  tags                              = local.tags

  default_node_pool {
    name                        = local.system
    vm_size                     = local.groups[local.system].instance_type
    auto_scaling_enabled        = true
    min_count                   = local.groups[local.system].min
    max_count                   = local.groups[local.system].max
    vnet_subnet_id              = var.subnet_ids[0]
    zones                       = var.zones
    host_encryption_enabled     = true
    os_disk_size_gb             = 128
    temporary_name_for_rotation = "rotation"
    node_labels                 = local.groups[local.system].labels
    tags                        = merge(local.tags, { node-group = local.system })

    upgrade_settings {
      max_surge = "33%"
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this.id]
  }

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled     = true
    admin_group_object_ids = var.admin_group_ids
    tenant_id              = data.azurerm_client_config.this.tenant_id
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    outbound_type       = "userAssignedNATGateway"
    load_balancer_sku   = "standard"
    pod_cidr            = "172.24.0.0/14"
    service_cidr        = "172.28.0.0/20"
    dns_service_ip      = "172.28.0.10"
  }

  # A private control plane has no list of its own: the network is its list.
  dynamic "api_server_access_profile" {
    for_each = var.private_endpoint ? [] : [var.admin_cidrs]
    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  key_management_service {
    key_vault_key_id         = azurerm_key_vault_key.this.id
    key_vault_network_access = "Public"
  }

  key_vault_secrets_provider {
    secret_rotation_enabled = true
  }

  # The autoscaler's business, and the patch channel's.
  lifecycle {
    ignore_changes = [default_node_pool[0].node_count, kubernetes_version]
  }

  depends_on = [azurerm_role_assignment.key, azurerm_role_assignment.network]
}
