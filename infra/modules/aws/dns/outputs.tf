output "fqdn" {
  description = "The name that users call."
  value       = local.fqdn
}

output "health_check_ids" {
  description = "Health check of each endpoint."
  value       = { for name, check in aws_route53_health_check.this : name => check.id }
}

output "record_names" {
  description = "Set identifiers of the records, one per endpoint."
  value       = [for record in aws_route53_record.this : record.set_identifier]
}

output "name_servers" {
  description = "Of a zone that was made here: what the parent domain must delegate to."
  value       = flatten(aws_route53_zone.this[*].name_servers)
}
