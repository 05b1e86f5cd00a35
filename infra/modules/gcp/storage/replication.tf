# Every new object is copied to the replica as it appears (Storage Transfer Service, cross-bucket replication).

data "google_storage_transfer_project_service_account" "this" {
  count = var.replica_region == null ? 0 : 1
}

locals {
  transfer_agent = [for account in data.google_storage_transfer_project_service_account.this : account.member]
  transfer_roles = length(local.transfer_agent) == 0 ? {} : {
    "primary/reader" = { bucket = "primary", role = "roles/storage.legacyBucketReader" }
    "primary/viewer" = { bucket = "primary", role = "roles/storage.objectViewer" }
    "primary/notify" = { bucket = "primary", role = "roles/storage.legacyBucketOwner" }
    "replica/writer" = { bucket = "replica", role = "roles/storage.legacyBucketWriter" }
    "replica/user"   = { bucket = "replica", role = "roles/storage.objectUser" }
  }
}

resource "google_storage_bucket_iam_member" "transfer" {
  for_each = local.transfer_roles
  bucket   = google_storage_bucket.this[each.value.bucket].name
  role     = each.value.role
  member   = local.transfer_agent[0]
}

# Notices of new objects travel by Pub/Sub, which the service sets up by itself.
resource "google_project_iam_member" "transfer" {
  count   = length(local.transfer_agent)
  project = data.google_project.this.project_id
  role    = "roles/pubsub.editor"
  member  = local.transfer_agent[0]
}

resource "google_storage_transfer_job" "replica" {
  count       = var.replica_region == null ? 0 : 1
  description = "${local.names.primary} to ${local.names.replica}"

  replication_spec {
    gcs_data_source {
      bucket_name = google_storage_bucket.this["primary"].name
    }
    gcs_data_sink {
      bucket_name = google_storage_bucket.this["replica"].name
    }
    transfer_options {
      overwrite_when = "DIFFERENT"
    }
  }

  depends_on = [google_storage_bucket_iam_member.transfer, google_project_iam_member.transfer]
}
