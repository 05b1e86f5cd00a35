# The password is made here, kept in Secret Manager, and in no state and no plan: it passes through ephemeral values
# and write-only arguments alone. The user gets what the secret holds, also when an earlier apply stopped between them.

resource "google_secret_manager_secret" "password" {
  count     = local.primary ? 1 : 0
  secret_id = "${var.name}-database"
  labels    = local.labels

  replication {
    auto {}
  }
}

ephemeral "random_password" "this" {
  count   = local.primary ? 1 : 0
  length  = 40
  special = false
}

resource "google_secret_manager_secret_version" "password" {
  count                  = local.primary ? 1 : 0
  secret                 = google_secret_manager_secret.password[0].id
  secret_data_wo         = ephemeral.random_password.this[0].result
  secret_data_wo_version = 1
}

ephemeral "google_secret_manager_secret_version" "password" {
  count  = local.primary ? 1 : 0
  secret = google_secret_manager_secret_version.password[0].secret
}

resource "google_sql_user" "this" {
  count               = local.primary ? 1 : 0
  name                = "flightpath"
  instance            = google_sql_database_instance.this.name
  password_wo         = ephemeral.google_secret_manager_secret_version.password[0].secret_data
  password_wo_version = 1
}
