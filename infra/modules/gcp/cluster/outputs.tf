output "cluster_name" {
  description = "Name of the GKE cluster."
  value       = google_container_cluster.this.name
}

output "endpoint" {
  description = "URL of the API server."
  value       = "https://${google_container_cluster.this.endpoint}"
}

output "ca_certificate" {
  description = "The API server's certificate authority, base64 of PEM."
  value       = google_container_cluster.this.master_auth[0].cluster_ca_certificate
}

output "oidc_issuer" {
  description = "URL that signs the tokens of service accounts."
  value       = "https://container.googleapis.com/v1/${google_container_cluster.this.id}"
}

output "workload_identities" {
  description = "Google service account of each service account, for its annotation iam.gke.io/gcp-service-account."
  value       = { for name, account in google_service_account.workload : name => account.email }
}

output "node_group_names" {
  description = "Names of the node pools."
  value       = [for pool in google_container_node_pool.this : pool.name]
}
