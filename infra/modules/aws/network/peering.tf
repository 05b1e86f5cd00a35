# Ways to the other regions. The region that asks has the peer in `peers`; the one that is asked accepts by
# `accepted_peers`, with the id that the first one put out. Each side routes from its own state.

locals {
  peer_routes = merge([
    for peer, network in var.peers : {
      for zone in var.zones : "${peer}/${zone}" => { zone = zone, cidr = network.cidr, peering = aws_vpc_peering_connection.this[peer].id }
    }
  ]...)
  accepted_routes = merge([
    for peer, network in var.accepted_peers : {
      for zone in var.zones : "${peer}/${zone}" => { zone = zone, cidr = network.cidr, peering = aws_vpc_peering_connection_accepter.this[peer].id }
    }
  ]...)
}

resource "aws_vpc_peering_connection" "this" {
  for_each    = var.peers
  vpc_id      = aws_vpc.this.id
  peer_vpc_id = each.value.network_id
  peer_region = each.value.region
  tags        = merge(local.tags, { Name = "${var.name}-to-${each.key}" })
}

resource "aws_vpc_peering_connection_accepter" "this" {
  for_each                  = var.accepted_peers
  vpc_peering_connection_id = each.value.peering_id
  auto_accept               = true
  tags                      = merge(local.tags, { Name = "${var.name}-from-${each.key}" })
}

resource "aws_route" "peer" {
  for_each                  = local.peer_routes
  route_table_id            = aws_route_table.private[each.value.zone].id
  destination_cidr_block    = each.value.cidr
  vpc_peering_connection_id = each.value.peering
}

resource "aws_route" "accepted_peer" {
  for_each                  = local.accepted_routes
  route_table_id            = aws_route_table.private[each.value.zone].id
  destination_cidr_block    = each.value.cidr
  vpc_peering_connection_id = each.value.peering
}

resource "aws_customer_gateway" "this" {
  count      = var.vpn == null ? 0 : 1
  bgp_asn    = var.vpn.bgp_asn
  ip_address = var.vpn.customer_ip
  type       = "ipsec.1"
  tags       = merge(local.tags, { Name = var.name })
}

resource "aws_vpn_gateway" "this" {
  count  = var.vpn == null ? 0 : 1
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = var.name })
}

# The pre-shared keys are made by AWS, and like every attribute they are in the state: it is a secret.
resource "aws_vpn_connection" "this" {
  count               = var.vpn == null ? 0 : 1
  customer_gateway_id = aws_customer_gateway.this[0].id
  vpn_gateway_id      = aws_vpn_gateway.this[0].id
  type                = "ipsec.1"
  static_routes_only  = true
  tags                = merge(local.tags, { Name = var.name })
}

resource "aws_vpn_connection_route" "this" {
  for_each               = var.vpn == null ? toset([]) : toset(var.vpn.cidrs)
  vpn_connection_id      = aws_vpn_connection.this[0].id
  destination_cidr_block = each.key
}

resource "aws_vpn_gateway_route_propagation" "this" {
  for_each       = var.vpn == null ? {} : local.zones
  vpn_gateway_id = aws_vpn_gateway.this[0].id
  route_table_id = aws_route_table.private[each.key].id
}
