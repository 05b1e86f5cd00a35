mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }

  zone        = "models.example.com"
  create_zone = true
  record      = "api"

  endpoints = {
    us-east = { region = "us-east-1", target = "gateway.us-east.example.com", weight = 90 }
    eu-west = { region = "eu-west-1", target = "gateway.eu-west.example.com", weight = 10, health_path = "/readyz" }
  }
}

run "users_reach_the_nearest_region_that_is_well" {
  command = apply

  assert {
    condition     = aws_route53_record.this["us-east"].latency_routing_policy[0].region == "us-east-1" && aws_route53_record.this["eu-west"].latency_routing_policy[0].region == "eu-west-1"
    error_message = "by latency"
  }
  assert {
    condition     = alltrue([for name, record in aws_route53_record.this : record.health_check_id == aws_route53_health_check.this[name].id && record.ttl == 30])
    error_message = "each by its own check"
  }
  assert {
    condition     = aws_route53_health_check.this["us-east"].request_interval == 10 && aws_route53_health_check.this["us-east"].failure_threshold == 3 && aws_route53_health_check.this["us-east"].type == "HTTPS"
    error_message = "three misses at 10 s"
  }
  assert {
    condition     = aws_route53_health_check.this["eu-west"].resource_path == "/readyz" && aws_route53_health_check.this["us-east"].resource_path == "/healthz"
    error_message = "each asks its own path"
  }
  assert {
    condition     = output.fqdn == "api.models.example.com" && toset(output.record_names) == toset(["us-east", "eu-west"]) && toset(keys(output.health_check_ids)) == toset(["us-east", "eu-west"])
    error_message = "outputs by endpoint"
  }
}

run "weights_share_users_out" {
  command = plan

  variables {
    policy = "weighted"
  }
  assert {
    condition     = aws_route53_record.this["us-east"].weighted_routing_policy[0].weight == 90 && aws_route53_record.this["eu-west"].weighted_routing_policy[0].weight == 10
    error_message = "nine to one"
  }
}

run "in_a_failover_the_greater_weight_is_first" {
  command = plan

  variables {
    policy = "failover"
  }
  assert {
    condition     = aws_route53_record.this["us-east"].failover_routing_policy[0].type == "PRIMARY" && aws_route53_record.this["eu-west"].failover_routing_policy[0].type == "SECONDARY"
    error_message = "us-east first"
  }
}

run "an_address_gets_an_a_record_and_is_asked_by_the_users_name" {
  command = plan

  variables {
    create_zone = false
    endpoints   = { us-east = { region = "us-east-1", target = "203.0.113.7" } }
  }
  assert {
    condition     = aws_route53_record.this["us-east"].type == "A" && aws_route53_health_check.this["us-east"].ip_address == "203.0.113.7" && aws_route53_health_check.this["us-east"].fqdn == "api.models.example.com"
    error_message = "SNI wants the name"
  }
  assert {
    condition     = length(aws_route53_zone.this) == 0
    error_message = "the zone is somebody else's"
  }
}

run "bad_values_are_refused" {
  command = plan

  variables {
    name        = "Flightpath_US"
    tags        = { team = "ml-platform" }
    zone        = "models"
    record      = "api.v1"
    policy      = "nearest"
    ttl_seconds = 86400
  }
  expect_failures = [var.name, var.tags, var.zone, var.record, var.policy, var.ttl_seconds]
}

run "a_name_for_nobody_is_refused" {
  command = plan

  variables {
    endpoints = {}
  }
  expect_failures = [var.endpoints]
}

run "a_failover_between_equals_is_refused" {
  command = plan

  variables {
    policy = "failover"
    endpoints = {
      us-east = { region = "us-east-1", target = "gateway.us-east.example.com" }
      eu-west = { region = "eu-west-1", target = "203.0.113.7" }
    }
  }
  expect_failures = [var.endpoints]
}

run "two_endpoints_of_one_region_by_latency_are_refused" {
  command = plan

  variables {
    endpoints = {
      blue  = { region = "us-east-1", target = "blue.example.com" }
      green = { region = "us-east-1", target = "green.example.com" }
    }
  }
  expect_failures = [var.endpoints]
}
