# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "google" {}

variables {
  name   = "flightpath-test"
  region = "europe-west4"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
  zones  = ["europe-west4-a", "europe-west4-b"]
}

run "nodes_have_no_public_addresses" {
  command = plan

  assert {
    condition     = google_compute_subnetwork.private.private_ip_google_access
    error_message = "nodes must reach Google's services inside"
  }

  assert {
    condition     = !google_compute_network.this.auto_create_subnetworks
    error_message = "subnets must be ours"
  }

  assert {
    condition     = alltrue([for rule in [google_compute_firewall.internal, google_compute_firewall.probes] : !contains(rule.source_ranges, "0.0.0.0/0")])
    error_message = "no rule may let the internet in"
  }
}

run "a_name_with_capitals_is_refused" {
  command = plan

  variables {
    name = "Flightpath"
  }

  expect_failures = [var.name]
}

run "a_missing_tag_is_refused" {
  command = plan

  variables {
    tags = { team = "ml-platform" }
  }

  expect_failures = [var.tags]
}

run "a_zone_of_another_region_is_refused" {
  command = plan

  variables {
    zones = ["europe-west4-a", "us-east1-b"]
  }

  expect_failures = [var.zones]
}

run "an_overlapping_peer_is_refused" {
  command = plan

  variables {
    peers = { other = { network_id = "n", cidr = "10.0.0.0/16", region = "us-east1" } }
  }

  expect_failures = [var.peers]
}
