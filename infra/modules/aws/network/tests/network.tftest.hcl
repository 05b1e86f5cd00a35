mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
  zones  = ["us-east-1a", "us-east-1b", "us-east-1c"]
}

run "private_and_public_subnets_do_not_overlap" {
  command = plan

  assert {
    condition     = aws_subnet.private["us-east-1a"].cidr_block == "10.0.0.0/20" && aws_subnet.private["us-east-1c"].cidr_block == "10.0.32.0/20"
    error_message = "private subnets are the first sixteenths of the range"
  }
  assert {
    condition     = aws_subnet.public["us-east-1a"].cidr_block == "10.0.240.0/24" && aws_subnet.public["us-east-1c"].cidr_block == "10.0.242.0/24"
    error_message = "public subnets lie in the last sixteenth"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "each zone has its own NAT by default"
  }
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_kms_key.flow_logs.enable_key_rotation
    error_message = "all traffic is logged under a key that rotates"
  }
  assert {
    condition     = aws_vpc.this.tags["team"] == "ml-platform" && aws_vpc.this.tags["cost-center"] == "research" && aws_vpc.this.tags["environment"] == "test"
    error_message = "costs are told by tags"
  }
}

run "one_nat_serves_all_zones_on_wish" {
  command = plan

  variables {
    nat = "single"
  }
  assert {
    condition     = keys(aws_nat_gateway.this) == ["us-east-1a"] && length(aws_route.nat) == 3
    error_message = "three private zones share the first zone's NAT"
  }
}

run "no_nat_means_no_way_out" {
  command = plan

  variables {
    nat = "none"
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0
    error_message = "no NAT, no route"
  }
}

run "a_peer_is_asked_and_routed_from_every_private_zone" {
  command = plan

  variables {
    peers          = { eu-west = { network_id = "vpc-1", cidr = "10.1.0.0/16", region = "eu-west-1" } }
    accepted_peers = { asia-pacific = { peering_id = "pcx-1", cidr = "10.2.0.0/16" } }
  }
  assert {
    condition     = aws_vpc_peering_connection.this["eu-west"].peer_region == "eu-west-1"
    error_message = "the peering crosses regions"
  }
  assert {
    condition     = length(aws_route.peer) == 3 && alltrue([for route in aws_route.peer : route.destination_cidr_block == "10.1.0.0/16"])
    error_message = "each private zone reaches the peer"
  }
  assert {
    condition     = aws_vpc_peering_connection_accepter.this["asia-pacific"].auto_accept && length(aws_route.accepted_peer) == 3
    error_message = "what another region asked for is accepted and routed"
  }
}

run "a_vpn_routes_the_other_side" {
  command = plan

  variables {
    vpn = { customer_ip = "203.0.113.7", cidrs = ["192.168.0.0/16"] }
  }
  assert {
    condition     = length(aws_vpn_connection.this) == 1 && length(aws_vpn_gateway_route_propagation.this) == 3
    error_message = "the tunnel's routes reach each private zone"
  }
}

run "interface_endpoints_let_only_this_network_in" {
  command = plan

  variables {
    interface_endpoints = ["ecr.api", "sts"]
  }
  assert {
    condition     = length(aws_vpc_endpoint.interface) == 2 && aws_vpc_security_group_ingress_rule.endpoints[0].cidr_ipv4 == "10.0.0.0/16"
    error_message = "endpoints answer this network"
  }
}

run "a_provider_of_another_region_is_refused" {
  command = plan

  override_data {
    target = data.aws_region.this
    values = { name = "eu-west-1" }
  }
  expect_failures = [aws_vpc.this]
}

run "bad_values_are_refused" {
  command = plan

  variables {
    name = "Flightpath_US"
    tags = { team = "ml-platform" }
    cidr = "10.0.0.0/8"
    nat  = "two"
  }
  expect_failures = [var.name, var.tags, var.cidr, var.nat]
}

run "one_zone_is_refused" {
  command = plan

  variables {
    zones = ["us-east-1a"]
  }
  expect_failures = [var.zones]
}

run "zones_of_another_region_are_refused" {
  command = plan

  variables {
    zones = ["eu-west-1a", "eu-west-1b"]
  }
  expect_failures = [var.zones]
}

run "a_peer_with_our_own_range_is_refused" {
  command = plan

  variables {
    peers = { eu-west = { network_id = "vpc-1", cidr = "10.0.0.0/16", region = "eu-west-1" } }
  }
  expect_failures = [var.peers]
}

run "a_region_that_aws_does_not_have_the_form_of_is_refused" {
  command = plan

  variables {
    region = "mars"
    zones  = ["mars-a", "mars-b"]
  }
  expect_failures = [var.region]
}
