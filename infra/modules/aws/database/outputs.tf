output "host" {
  description = "Address of this instance; one that follows answers reads only."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port of PostgreSQL."
  value       = aws_db_instance.this.port
}

output "database" {
  description = "Name of the first database."
  value       = var.database
}

output "secret_id" {
  description = "Secret that holds the password; null for one that follows, which has its source's."
  value       = local.follows ? null : local.managed ? aws_db_instance.this.master_user_secret[0].secret_arn : aws_secretsmanager_secret.this[0].arn
}

output "replica_host" {
  description = "Address of this instance if it follows another, else null."
  value       = local.follows ? aws_db_instance.this.address : null
}

output "arn" {
  description = "What a database of another region names in replica_of."
  value       = aws_db_instance.this.arn
}
