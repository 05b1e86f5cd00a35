# Copies in another region, with replication time control: AWS promises 99.99 % of objects within 15 minutes.
# The other bucket belongs to that region's own state, so losing either state or region leaves the other whole.

data "aws_iam_policy_document" "replication_trust" {
  count = var.replica_region == null ? 0 : 1
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["s3.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "replication" {
  count = var.replica_region == null ? 0 : 1

  statement {
    sid       = "Source"
    actions   = ["s3:GetReplicationConfiguration", "s3:ListBucket"]
    resources = [aws_s3_bucket.this.arn]
  }

  statement {
    sid       = "Versions"
    actions   = ["s3:GetObjectVersionForReplication", "s3:GetObjectVersionAcl", "s3:GetObjectVersionTagging"]
    resources = ["${aws_s3_bucket.this.arn}/*"]
  }

  statement {
    sid       = "Copies"
    actions   = ["s3:ReplicateObject", "s3:ReplicateDelete", "s3:ReplicateTags"]
    resources = ["${var.replica_bucket_arn}/*"]
  }

  statement {
    sid       = "Read"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "Write"
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [var.replica_key_arn]
  }
}

resource "aws_iam_role" "replication" {
  count              = var.replica_region == null ? 0 : 1
  name               = "${var.name}-replication"
  assume_role_policy = data.aws_iam_policy_document.replication_trust[0].json
  tags               = local.tags
}

resource "aws_iam_role_policy" "replication" {
  count  = var.replica_region == null ? 0 : 1
  name   = "copy"
  role   = aws_iam_role.replication[0].id
  policy = data.aws_iam_policy_document.replication[0].json
}

resource "aws_s3_bucket_replication_configuration" "this" {
  count  = var.replica_region == null ? 0 : 1
  bucket = aws_s3_bucket.this.id
  role   = aws_iam_role.replication[0].arn

  rule {
    id       = "to-${var.replica_region}"
    status   = "Enabled"
    priority = 1
    filter {}

    delete_marker_replication {
      status = "Enabled"
    }

    source_selection_criteria {
      sse_kms_encrypted_objects {
        status = "Enabled"
      }
    }

    destination {
      bucket        = var.replica_bucket_arn
      storage_class = "STANDARD"

      encryption_configuration {
        replica_kms_key_id = var.replica_key_arn
      }
      metrics {
        status = "Enabled"
        event_threshold {
          minutes = 15
        }
      }
      replication_time {
        status = "Enabled"
        time {
          minutes = 15
        }
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}
