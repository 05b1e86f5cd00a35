# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "azurerm" {}

variables {
  name   = "flightpath-test"
  region = "westeurope"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
  zones  = ["1", "2"]
}

run "nothing_but_https_comes_in_from_the_internet" {
  command = plan

  assert {
    condition     = !azurerm_subnet.private.default_outbound_access_enabled
    error_message = "the way out must be NAT"
  }

  assert {
    condition     = length(azurerm_network_security_group.private.security_rule) == 0
    error_message = "the private subnets let nobody in"
  }

  assert {
    condition     = alltrue([for rule in azurerm_network_security_group.public.security_rule : rule.destination_port_range == "443"])
    error_message = "the public subnet lets HTTPS in alone"
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

run "an_unknown_zone_is_refused" {
  command = plan

  variables {
    zones = ["1", "a"]
  }

  expect_failures = [var.zones]
}
