output "neighbour" {
  description = "What the other regions need of this one."
  value       = module.region.neighbour
}

output "cluster" {
  description = "How the cluster is reached, and the roles of its service accounts."
  value       = module.region.cluster
}

output "storage" {
  description = "The artifact store."
  value       = module.region.storage
}

output "database" {
  description = "The database, the secret that holds its password, and the standby of a neighbour's."
  value       = module.region.database
}

output "repository_urls" {
  description = "Image repositories."
  value       = module.region.repository_urls
}

output "observability" {
  description = "Where metrics, logs and alarms of AWS itself go."
  value       = module.region.observability
}
