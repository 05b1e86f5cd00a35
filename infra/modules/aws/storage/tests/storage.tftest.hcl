mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }
}

run "objects_are_encrypted_versioned_private_and_kept" {
  command = apply

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && aws_kms_key.this.enable_key_rotation
    error_message = "a key of its own that rotates"
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "what is overwritten can be brought back"
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy && aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    error_message = "never public"
  }
  assert {
    condition     = !aws_s3_bucket.this.force_destroy && contains(data.aws_iam_policy_document.bucket.statement[*].sid, "TlsOnly") && contains(data.aws_iam_policy_document.bucket.statement[*].sid, "Protected")
    error_message = "TLS only, and not to be deleted"
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.this.rule[0].noncurrent_version_expiration[0].noncurrent_days == 90
    error_message = "old versions stay for 90 days"
  }
  assert {
    condition     = output.bucket == aws_s3_bucket.this.id && output.url == "s3://${aws_s3_bucket.this.id}" && output.replica_bucket == null
    error_message = "the address is the bucket's"
  }
}

run "copies_have_replication_time_control_and_the_other_regions_key" {
  command = plan

  variables {
    replica_region     = "eu-west-1"
    replica_bucket_arn = "arn:aws:s3:::flightpath-eu-west-artifacts-123456789012"
    replica_key_arn    = "arn:aws:kms:eu-west-1:123456789012:key/1"
  }
  assert {
    condition     = one(one(aws_s3_bucket_replication_configuration.this[0].rule).destination).replication_time[0].time[0].minutes == 15
    error_message = "within 15 minutes"
  }
  assert {
    condition     = one(one(one(aws_s3_bucket_replication_configuration.this[0].rule).destination).encryption_configuration).replica_kms_key_id == "arn:aws:kms:eu-west-1:123456789012:key/1"
    error_message = "under the key of where they lie"
  }
  assert {
    condition     = output.replica_bucket == "flightpath-eu-west-artifacts-123456789012"
    error_message = "the name out of the ARN"
  }
}

run "without_protection_it_may_go" {
  command = plan

  variables {
    protect = false
  }
  assert {
    condition     = aws_s3_bucket.this.force_destroy && !contains(data.aws_iam_policy_document.bucket.statement[*].sid, "Protected")
    error_message = "protect is what holds it"
  }
}

run "half_a_replication_and_no_retention_are_refused" {
  command = plan

  variables {
    replica_region = "eu-west-1"
    retention_days = 0
  }
  expect_failures = [var.replica_bucket_arn, var.replica_key_arn, var.retention_days]
}

run "a_copy_in_the_same_region_is_refused" {
  command = plan

  variables {
    replica_region     = "us-east-1"
    replica_bucket_arn = "arn:aws:s3:::other"
    replica_key_arn    = "arn:aws:kms:us-east-1:123456789012:key/1"
  }
  expect_failures = [var.replica_region]
}

run "a_bad_name_and_missing_tags_are_refused" {
  command = plan

  variables {
    name = "Flightpath_US"
    tags = { team = "ml-platform" }
  }
  expect_failures = [var.name, var.tags]
}
