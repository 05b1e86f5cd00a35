# PostgreSQL for registry, Flyte and MLflow: private address, encrypted by our key, TLS only, point-in-time recovery.

data "google_project" "this" {}

locals {
  labels  = merge(var.tags, { module = "database" })
  primary = var.replica_of == null
  agent   = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-cloud-sql.iam.gserviceaccount.com"
  flags = {
    "cloudsql.iam_authentication" = "on"
    "cloudsql.enable_pgaudit"     = "on"
    log_checkpoints               = "on"
    log_connections               = "on"
    log_disconnections            = "on"
    log_lock_waits                = "on"
    log_min_duration_statement    = "1000"
    log_min_error_statement       = "error"
    log_statement                 = "ddl"
  }
}

resource "google_kms_key_ring" "this" {
  name     = "${var.name}-database"
  location = var.region
}

resource "google_kms_crypto_key" "this" {
  name            = "database"
  key_ring        = google_kms_key_ring.this.id
  rotation_period = "7776000s"
  labels          = local.labels

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key_iam_member" "this" {
  crypto_key_id = google_kms_crypto_key.this.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = local.agent
}

resource "google_sql_database_instance" "this" {
  #checkov:skip=CKV2_GCP_13:durations of every statement are a load of their own; slow ones are logged
  #checkov:skip=CKV_GCP_108:a look-up for each connection; addresses are logged
  #checkov:skip=CKV_GCP_109:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_110:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_111:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_51:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_52:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_53:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_54:set in local.flags, which the scanner does not follow
  #checkov:skip=CKV_GCP_6:ssl_mode takes the place of require_ssl
  #checkov:skip=CKV_GCP_79:the version that the other clouds have too
  name                 = var.name
  region               = var.region
  database_version     = "POSTGRES_16"
  encryption_key_name  = google_kms_crypto_key.this.id
  master_instance_name = var.replica_of
  deletion_protection  = var.protect

  settings {
    tier                        = var.size
    edition                     = "ENTERPRISE"
    disk_type                   = "PD_SSD"
    disk_size                   = var.storage_gb
    disk_autoresize             = true
    availability_type           = local.primary ? "REGIONAL" : "ZONAL"
    deletion_protection_enabled = var.protect
    user_labels                 = local.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network_id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    dynamic "backup_configuration" {
      for_each = local.primary ? [30] : []
      content {
        enabled                        = true
        point_in_time_recovery_enabled = true
        start_time                     = "02:00"
        transaction_log_retention_days = 7
        backup_retention_settings {
          retained_backups = backup_configuration.value
        }
      }
    }

    dynamic "database_flags" {
      for_each = local.flags
      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }

    insights_config {
      query_insights_enabled = true
    }
  }

  lifecycle {
    ignore_changes = [settings[0].disk_size]
  }

  depends_on = [google_kms_crypto_key_iam_member.this]
}

resource "google_sql_database" "this" {
  count    = local.primary ? 1 : 0
  name     = "flightpath"
  instance = google_sql_database_instance.this.name
}
