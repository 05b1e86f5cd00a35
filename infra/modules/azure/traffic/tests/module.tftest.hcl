# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "azurerm" {}

variables {
  name   = "flightpath-test"
  region = "westeurope"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
  zone   = "models.example.com"
  record = "api"
  endpoints = {
    eu = { region = "westeurope", target = "gateway-eu.example.com", weight = 200 }
    us = { region = "eastus", target = "gateway-us.example.com" }
  }
}

run "by_latency_every_endpoint_is_checked_over_https" {
  command = plan

  assert {
    condition     = azurerm_traffic_manager_profile.this.traffic_routing_method == "Performance"
    error_message = "latency must be the method"
  }

  assert {
    condition     = azurerm_traffic_manager_profile.this.monitor_config[0].protocol == "HTTPS"
    error_message = "health must be checked over HTTPS"
  }
}

run "in_a_failover_the_heaviest_is_first" {
  command = plan

  variables {
    policy = "failover"
  }

  assert {
    condition     = azurerm_traffic_manager_external_endpoint.this["eu"].priority == 1
    error_message = "eu is heavier"
  }

  assert {
    condition     = azurerm_traffic_manager_external_endpoint.this["us"].priority == 2
    error_message = "us is the backup"
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

run "an_unknown_policy_is_refused" {
  command = plan

  variables {
    policy = "random"
  }

  expect_failures = [var.policy]
}
