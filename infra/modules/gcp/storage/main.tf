# The artifact store: versioned, encrypted by our key, never public, copied to a second region where one is named.

data "google_project" "this" {}
data "google_storage_project_service_account" "this" {}

locals {
  labels = merge(var.tags, { module = "storage" })
  places = merge({ primary = var.region }, var.replica_region == null ? {} : { replica = var.replica_region })
  # Bucket names are shared by all of Google's users; project ids are too.
  names = { primary = "${data.google_project.this.project_id}-${var.name}", replica = "${data.google_project.this.project_id}-${var.name}-r" }
}

resource "google_kms_key_ring" "this" {
  for_each = local.places
  name     = "${var.name}-storage-${each.key}"
  location = each.value
}

resource "google_kms_crypto_key" "this" {
  for_each        = local.places
  name            = "objects"
  key_ring        = google_kms_key_ring.this[each.key].id
  rotation_period = "7776000s"
  labels          = local.labels

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "this" {
  for_each      = local.places
  crypto_key_id = google_kms_crypto_key.this[each.key].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = data.google_storage_project_service_account.this.member
}

resource "google_storage_bucket" "this" {
  #checkov:skip=CKV_GCP_62:data access is logged by Cloud Audit Logs, a setting of the project
  for_each                    = local.places
  name                        = local.names[each.key]
  location                    = each.value
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.protect
  labels                      = local.labels

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.this[each.key].id
  }

  soft_delete_policy {
    retention_duration_seconds = var.retention_days * 86400
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = var.retention_days
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.this]
}
