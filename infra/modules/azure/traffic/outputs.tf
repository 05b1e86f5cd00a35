output "fqdn" {
  description = "The name that users ask for."
  value       = trimsuffix(azurerm_dns_cname_record.this.fqdn, ".")
}

output "health_check_ids" {
  description = "What checks the health of each endpoint: Traffic Manager's own endpoint."
  value       = { for name, endpoint in azurerm_traffic_manager_external_endpoint.this : name => endpoint.id }
}

output "record_names" {
  description = "Names of the records."
  value       = [azurerm_dns_cname_record.this.fqdn]
}
