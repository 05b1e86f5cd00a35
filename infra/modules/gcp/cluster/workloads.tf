# Identities of pods: a service account of Kubernetes acts as exactly one of Google's, and no pod uses the node's.

locals {
  roles = { read = "roles/storage.objectViewer", write = "roles/storage.objectUser" }
  bucket_use = merge([
    for name, account in var.service_accounts : {
      for bucket in var.buckets : "${name}/${bucket}" => { account = name, bucket = bucket, role = local.roles[account.bucket_access] }
    } if account.bucket_access != "none"
  ]...)
}

resource "google_service_account" "workload" {
  for_each     = var.service_accounts
  account_id   = substr("${var.name}-${each.key}", 0, 30)
  display_name = "${each.value.namespace}/${each.value.name} in ${var.name}"

  lifecycle {
    precondition {
      condition     = each.value.bucket_access == "none" || length(var.buckets) > 0
      error_message = "service account ${each.key} has bucket_access ${each.value.bucket_access}: buckets must be given."
    }
  }
}

resource "google_service_account_iam_member" "workload" {
  for_each           = var.service_accounts
  service_account_id = google_service_account.workload[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.project}.svc.id.goog[${each.value.namespace}/${each.value.name}]"
  # The pool of identities comes with the cluster.
  depends_on = [google_container_cluster.this]
}

resource "google_storage_bucket_iam_member" "workload" {
  for_each = local.bucket_use
  bucket   = each.value.bucket
  role     = each.value.role
  member   = google_service_account.workload[each.value.account].member
}
