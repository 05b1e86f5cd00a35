output "fqdn" {
  description = "The name that users ask for."
  value       = trimsuffix(google_dns_record_set.this.name, ".")
}

output "health_check_ids" {
  description = "Health check of each endpoint: Cloud DNS has one for all of a record's."
  value       = { for name, endpoint in var.endpoints : name => google_compute_health_check.this.id }
}

output "record_names" {
  description = "Names of the records."
  value       = [google_dns_record_set.this.name]
}
