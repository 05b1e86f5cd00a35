output "cluster_name" {
  description = "Name of the AKS cluster."
  value       = azurerm_kubernetes_cluster.this.name
}

output "endpoint" {
  description = "URL of the API server."
  value       = "https://${var.private_endpoint ? azurerm_kubernetes_cluster.this.private_fqdn : azurerm_kubernetes_cluster.this.fqdn}"
}

output "ca_certificate" {
  description = "The API server's certificate authority, base64 of PEM."
  # A part of a sensitive attribute that is public by its nature.
  value = nonsensitive(azurerm_kubernetes_cluster.this.kube_config[0].cluster_ca_certificate)
}

output "oidc_issuer" {
  description = "URL that signs the tokens of service accounts."
  value       = azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "workload_identities" {
  description = "Client id of each service account's identity, for its annotation azure.workload.identity/client-id."
  value       = { for name, identity in azurerm_user_assigned_identity.workload : name => identity.client_id }
}

output "node_group_names" {
  description = "Names of the node pools."
  value       = concat([local.system], [for pool in azurerm_kubernetes_cluster_node_pool.this : pool.name])
}
