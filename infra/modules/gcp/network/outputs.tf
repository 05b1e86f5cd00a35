output "network_id" {
  description = "The VPC network."
  # Known only once Cloud SQL can get a private address, so that nothing asks for one earlier.
  value      = google_compute_network.this.id
  depends_on = [google_service_networking_connection.this]
}

output "private_subnet_ids" {
  description = "The nodes' subnet, which spans the region."
  value       = [google_compute_subnetwork.private.id]
}

output "public_subnet_ids" {
  description = "The subnet of the load balancers' proxies."
  value       = [google_compute_subnetwork.public.id]
}

output "cidr" {
  description = "The network's range, without pods and services."
  value       = var.cidr
}

output "zones" {
  description = "The zones that nodes may be in."
  value       = var.zones
}
