# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "google" {}

variables {
  name   = "flightpath-test"
  region = "europe-west4"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
  zone   = "models.example.com"
  record = "api"
  endpoints = {
    eu = { region = "europe-west4", target = "192.0.2.10", weight = 200 }
    us = { region = "us-east1", target = "192.0.2.20" }
  }
}

run "by_place_each_endpoint_has_its_region" {
  command = plan

  assert {
    condition     = length(google_dns_record_set.this.routing_policy[0].geo) == 2
    error_message = "each endpoint must have a place"
  }

  assert {
    condition     = output.fqdn == "api.models.example.com"
    error_message = "the name must be whole"
  }
}

run "in_a_failover_the_heaviest_is_first" {
  command = plan

  variables {
    policy = "failover"
  }

  assert {
    condition     = google_dns_record_set.this.routing_policy[0].primary_backup[0].primary[0].external_endpoints == tolist(["192.0.2.10"])
    error_message = "eu is heavier"
  }

  assert {
    condition     = length(google_dns_record_set.this.routing_policy[0].primary_backup[0].backup_geo) == 1
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

run "a_host_name_is_refused" {
  command = plan

  variables {
    endpoints = { eu = { region = "europe-west4", target = "gateway.example.com" } }
  }

  expect_failures = [var.endpoints]
}
