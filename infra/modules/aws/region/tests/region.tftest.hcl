mock_provider "aws" {
  source = "../mocks"
}

variables {
  name               = "flightpath-eu-west"
  region             = "eu-west-1"
  tags               = { team = "ml-platform", environment = "test", cost-center = "research" }
  cidr               = "10.1.0.0/16"
  zones              = ["eu-west-1a", "eu-west-1b"]
  node_groups        = { system = { instance_type = "m7i.xlarge", min = 2, max = 4 } }
  notify_emails      = ["ml-platform@example.com"]
  budget_usd_monthly = 5000
  replicate_to       = "flightpath-us-east"
  standby_of         = "flightpath-us-east"
}

override_data {
  target = module.network.data.aws_region.this
  values = { name = "eu-west-1" }
}

run "the_first_round_needs_no_neighbour" {
  command = apply

  assert {
    condition     = output.neighbour.peering_ids == {} && output.storage.replica_bucket == null && output.database.standby_host == null
    error_message = "alone"
  }
}

run "the_second_round_brings_peering_replication_and_standby" {
  command = apply

  variables {
    neighbours = {
      flightpath-us-east = {
        region       = "us-east-1", network_id = "vpc-us", cidr = "10.0.0.0/16"
        bucket_arn   = "arn:aws:s3:::flightpath-us-east-artifacts-123456789012", kms_key_id = "arn:aws:kms:us-east-1:123456789012:key/1"
        database_arn = "arn:aws:rds:us-east-1:123456789012:db:flightpath-us-east", peering_ids = {}
      }
      flightpath-asia-pacific = {
        region       = "ap-southeast-1", network_id = "vpc-ap", cidr = "10.2.0.0/16"
        bucket_arn   = "arn:aws:s3:::ap", kms_key_id = "arn:aws:kms:ap-southeast-1:123456789012:key/1"
        database_arn = "arn:aws:rds:ap-southeast-1:123456789012:db:ap", peering_ids = { flightpath-eu-west = "pcx-ap" }
      }
    }
  }
  assert {
    condition     = keys(output.neighbour.peering_ids) == ["flightpath-us-east"]
    error_message = "of two, the name that sorts first asks"
  }
  assert {
    condition     = output.storage.replica_bucket == "flightpath-us-east-artifacts-123456789012" && output.database.standby_host != null
    error_message = "copies to the neighbour, and its database followed"
  }
}

run "a_neighbour_with_our_range_is_refused" {
  command = plan

  variables {
    neighbours = {
      flightpath-eu-west = { region = "us-east-1", network_id = "vpc-us", cidr = "10.1.0.0/16", bucket_arn = "", kms_key_id = "", database_arn = "", peering_ids = {} }
    }
  }
  expect_failures = [var.neighbours]
}
