# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "google" {}

variables {
  name   = "flightpath-test"
  region = "europe-west4"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
}

run "objects_are_versioned_encrypted_and_never_public" {
  command = plan

  assert {
    condition     = google_storage_bucket.this["primary"].public_access_prevention == "enforced"
    error_message = "the bucket must never be public"
  }

  assert {
    condition     = google_storage_bucket.this["primary"].versioning[0].enabled
    error_message = "objects must be versioned"
  }

  assert {
    condition     = !google_storage_bucket.this["primary"].force_destroy
    error_message = "a protected bucket must refuse destruction"
  }

  assert {
    condition     = length(google_storage_transfer_job.replica) == 0
    error_message = "there is no replica to copy to"
  }
}

run "a_replica_gets_every_object" {
  command = plan

  variables {
    replica_region = "europe-west1"
  }

  assert {
    condition     = length(google_storage_bucket.this) == 2
    error_message = "there must be two buckets"
  }

  assert {
    condition     = length(google_storage_transfer_job.replica) == 1
    error_message = "a job must copy"
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

run "a_replica_in_the_same_region_is_refused" {
  command = plan

  variables {
    replica_region = "europe-west4"
  }

  expect_failures = [var.replica_region]
}
