# Terraform 1.11 can mock no ephemeral resource, even one of count 0: in mock tests a data source stands in for both,
# and the password that it mocks would reach the state. tests/e2e/test_infra_aws.py has the real one against moto.

data "aws_secretsmanager_random_password" "this" {
  count               = var.replicated ? 1 : 0
  password_length     = 32
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "this" {
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
  secret_string_wo         = data.aws_secretsmanager_random_password.this[0].random_password
  secret_string_wo_version = var.password_version
}

locals {
  password = var.replicated ? data.aws_secretsmanager_random_password.this[0].random_password : null
}
