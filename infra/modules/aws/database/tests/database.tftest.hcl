mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }

  network_id = "vpc-1"
  subnet_ids = ["subnet-a", "subnet-b"]
}

run "it_is_encrypted_private_in_two_zones_and_rds_keeps_its_password" {
  command = plan

  assert {
    condition     = aws_db_instance.this.storage_encrypted && !aws_db_instance.this.publicly_accessible && aws_db_instance.this.multi_az
    error_message = "encrypted, private, two zones"
  }
  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.password == null && length(aws_secretsmanager_secret.this) == 0
    error_message = "no password of ours"
  }
  assert {
    condition     = aws_db_instance.this.deletion_protection && !aws_db_instance.this.skip_final_snapshot && aws_db_instance.this.backup_retention_period == 14
    error_message = "not to be deleted, and restorable"
  }
  assert {
    condition     = contains([for parameter in aws_db_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "rds.force_ssl=1") && aws_db_parameter_group.this.family == "postgres16"
    error_message = "TLS only"
  }
  assert {
    condition     = aws_db_instance.this.max_allocated_storage == 400 && aws_db_instance.this.tags["team"] == "ml-platform"
    error_message = "grows to four times; tagged"
  }
}

run "one_that_is_followed_has_a_password_that_terraform_only_hands_on" {
  command = plan

  variables {
    replicated = true
  }
  assert {
    condition     = aws_db_instance.this.manage_master_user_password == null && aws_db_instance.this.password == null && aws_db_instance.this.password_wo_version == 1
    error_message = "RDS lets none follow one whose password it manages"
  }
  assert {
    condition     = aws_secretsmanager_secret.this[0].recovery_window_in_days == 30 && aws_secretsmanager_secret_version.this[0].secret_string == null
    error_message = "the secret has it, the state has not"
  }
}

run "one_that_follows_has_everything_from_its_source" {
  command = apply

  variables {
    replica_of = "arn:aws:rds:eu-west-1:123456789012:db:flightpath-eu-west"
  }
  assert {
    condition     = aws_db_instance.this.replicate_source_db == "arn:aws:rds:eu-west-1:123456789012:db:flightpath-eu-west" && aws_db_instance.this.username != "flightpath" && aws_db_instance.this.manage_master_user_password == null
    error_message = "no user and no password of its own"
  }
  assert {
    condition     = aws_db_instance.this.storage_encrypted && aws_db_instance.this.kms_key_id == aws_kms_key.this.arn
    error_message = "a copy in another region wants a key of that region"
  }
  assert {
    condition     = output.replica_host == output.host && output.secret_id == null
    error_message = "reads are answered here"
  }
}

run "only_named_groups_and_ranges_connect" {
  command = plan

  variables {
    allowed_security_group_ids = { cluster = "sg-1" }
    allowed_cidrs              = ["10.1.0.0/16"]
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.groups["cluster"].referenced_security_group_id == "sg-1" && aws_vpc_security_group_ingress_rule.cidrs["10.1.0.0/16"].from_port == 5432
    error_message = "PostgreSQL from the cluster and a peer"
  }
}

run "without_protection_it_may_go" {
  command = plan

  variables {
    protect    = false
    replicated = true
  }
  assert {
    condition     = !aws_db_instance.this.deletion_protection && aws_db_instance.this.skip_final_snapshot && aws_secretsmanager_secret.this[0].recovery_window_in_days == 0
    error_message = "protect is what holds it"
  }
}

run "bad_values_are_refused" {
  command = plan

  variables {
    name           = "Flightpath_US"
    tags           = { team = "ml-platform" }
    subnet_ids     = ["subnet-a"]
    size           = "m7g.large"
    storage_gb     = 5
    engine_version = "9.6"
    replica_of     = "flightpath-eu-west"
    allowed_cidrs  = ["0.0.0.0/0"]
    backup_days    = 0
  }
  expect_failures = [var.name, var.tags, var.subnet_ids, var.size, var.storage_gb, var.engine_version, var.replica_of, var.allowed_cidrs, var.backup_days]
}

run "following_a_database_of_the_same_region_is_refused" {
  command = plan

  variables {
    replica_of = "arn:aws:rds:us-east-1:123456789012:db:other"
  }
  expect_failures = [var.replica_of]
}

run "a_database_that_follows_is_not_followed" {
  command = plan

  variables {
    replica_of = "arn:aws:rds:eu-west-1:123456789012:db:flightpath-eu-west"
    replicated = true
  }
  expect_failures = [var.replicated]
}
