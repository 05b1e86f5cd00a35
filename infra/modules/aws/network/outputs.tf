output "network_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "One per zone, in the order of `zones`: nodes and databases."
  value       = [for zone in var.zones : aws_subnet.private[zone].id]
}

output "public_subnet_ids" {
  description = "One per zone, in the order of `zones`: load balancers and NAT."
  value       = [for zone in var.zones : aws_subnet.public[zone].id]
}

output "cidr" {
  description = "The network's range."
  value       = aws_vpc.this.cidr_block
}

output "peering_ids" {
  description = "Of the peerings that this side asked for, by peer: what the other side accepts."
  value       = { for peer, connection in aws_vpc_peering_connection.this : peer => connection.id }
}

output "vpn_tunnels" {
  description = "Public addresses of the VPN's tunnels; empty without one."
  value       = flatten([for connection in aws_vpn_connection.this : [connection.tunnel1_address, connection.tunnel2_address]])
}
