# The password of a replicated database: made by Secrets Manager, kept there, and in neither plan nor state.
# The instance reads it back from there: were an apply to end between the two, the next one would use the same.

ephemeral "aws_secretsmanager_random_password" "this" {
  count               = var.replicated ? 1 : 0
  password_length     = 32
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:RDS rotates no password of a replicated database; password_version does
  count                   = var.replicated ? 1 : 0
  name                    = "${var.name}-database"
  description             = "Master password of the database ${var.name}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.protect ? 30 : 0
  tags                    = local.tags
}

resource "aws_secretsmanager_secret_version" "this" {
  count                    = var.replicated ? 1 : 0
  secret_id                = aws_secretsmanager_secret.this[0].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.this[0].random_password
  secret_string_wo_version = var.password_version
}

ephemeral "aws_secretsmanager_secret_version" "password" {
  count     = var.replicated ? 1 : 0
  secret_id = aws_secretsmanager_secret_version.this[0].secret_id
}

locals {
  password = var.replicated ? ephemeral.aws_secretsmanager_secret_version.password[0].secret_string : null
}
