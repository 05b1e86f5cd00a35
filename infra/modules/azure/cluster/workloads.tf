# Identities of pods: a service account of Kubernetes acts as exactly one managed identity, and no pod uses the node's.

locals {
  roles = { read = "Storage Blob Data Reader", write = "Storage Blob Data Contributor" }
  bucket_use = merge([
    for name, account in var.service_accounts : {
      for bucket, id in var.bucket_ids : "${name}/${bucket}" => { account = name, scope = id, role = local.roles[account.bucket_access] }
    } if account.bucket_access != "none"
  ]...)
}

resource "azurerm_user_assigned_identity" "workload" {
  for_each            = var.service_accounts
  name                = "${var.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
  tags                = local.tags

  lifecycle {
    precondition {
      condition     = each.value.bucket_access == "none" || length(var.bucket_ids) > 0
      error_message = "service account ${each.key} has bucket_access ${each.value.bucket_access}: bucket_ids must be given."
    }
  }
}

resource "azurerm_federated_identity_credential" "workload" {
  for_each            = var.service_accounts
  name                = each.key
  resource_group_name = azurerm_resource_group.this.name
  parent_id           = azurerm_user_assigned_identity.workload[each.key].id
  issuer              = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject             = "system:serviceaccount:${each.value.namespace}:${each.value.name}"
  audience            = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "workload" {
  for_each             = local.bucket_use
  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.workload[each.value.account].principal_id
}
