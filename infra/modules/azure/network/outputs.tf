output "network_id" {
  description = "The virtual network."
  value       = azurerm_virtual_network.this.id
}

output "private_subnet_ids" {
  description = "The nodes' subnet, which spans the region; known once its way out stands."
  value       = [azurerm_subnet.private.id]
  depends_on  = [azurerm_subnet_nat_gateway_association.private]
}

output "public_subnet_ids" {
  description = "The load balancers' subnet."
  value       = [azurerm_subnet.public.id]
}

output "cidr" {
  description = "The network's range."
  value       = var.cidr
}

output "database_subnet_ids" {
  description = "The subnet that is delegated to PostgreSQL: `subnet_ids` of the database module."
  value       = [azurerm_subnet.database.id]
}
