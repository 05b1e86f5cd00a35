# With mock providers: rules of inputs, and what the plan says of encryption and reach.

mock_provider "google" {}
mock_provider "random" {}

variables {
  name       = "flightpath-test"
  region     = "europe-west4"
  tags       = { team = "ml-platform", environment = "test", cost-center = "research" }
  network_id = "projects/p/global/networks/n"
}

run "the_server_is_private_encrypted_and_protected" {
  command = plan

  assert {
    condition     = !google_sql_database_instance.this.settings[0].ip_configuration[0].ipv4_enabled
    error_message = "there must be no public address"
  }

  assert {
    condition     = google_sql_database_instance.this.settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY"
    error_message = "TLS must be forced"
  }

  assert {
    condition     = google_sql_database_instance.this.deletion_protection
    error_message = "the server must be protected"
  }
}

run "a_replica_has_no_user_of_its_own" {
  command = plan

  variables {
    replica_of = "flightpath-us"
  }

  assert {
    condition     = length(google_sql_user.this) == 0
    error_message = "a replica follows its primary's users"
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

run "an_unknown_tier_is_refused" {
  command = plan

  variables {
    size = "db.m6g.large"
  }

  expect_failures = [var.size]
}
