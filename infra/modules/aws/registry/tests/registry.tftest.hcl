mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }

  repositories = ["flightpath/gateway", "flightpath/agent"]
}

run "images_are_immutable_scanned_and_encrypted" {
  command = plan

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && !repository.force_delete])
    error_message = "a tag never changes what it names"
  }
  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_scanning_configuration[0].scan_on_push && repository.encryption_configuration[0].encryption_type == "KMS"])
    error_message = "scanned and encrypted"
  }
  assert {
    condition     = length(aws_ecr_replication_configuration.this) == 0
    error_message = "no copies unless asked for"
  }
}

run "other_regions_get_copies" {
  command = plan

  variables {
    replica_regions = ["eu-west-1", "ap-southeast-1"]
  }
  assert {
    condition     = [for there in aws_ecr_replication_configuration.this[0].replication_configuration[0].rule[0].destination : there.region] == ["eu-west-1", "ap-southeast-1"]
    error_message = "both regions"
  }
}

run "bad_values_are_refused" {
  command = plan

  variables {
    name            = "Flightpath_US"
    tags            = { team = "ml-platform" }
    repositories    = ["Flightpath/Gateway"]
    replica_regions = ["us-east-1"]
  }
  expect_failures = [var.name, var.tags, var.repositories, var.replica_regions]
}
