output "fqdn" {
  description = "The name that users call."
  value       = module.dns.fqdn
}

output "health_check_ids" {
  description = "Health check of each region."
  value       = module.dns.health_check_ids
}

output "name_servers" {
  description = "Of a zone that was made here: what the parent domain must delegate to."
  value       = module.dns.name_servers
}
