output "host" {
  description = "Private address of the server."
  value       = google_sql_database_instance.this.private_ip_address
}

output "port" {
  description = "Port of the server."
  value       = 5432
}

output "database" {
  description = "Name of the database."
  value       = "flightpath"
}

output "secret_id" {
  description = "Secret of Secret Manager that holds the password of the user flightpath; null for a replica."
  value       = try(google_secret_manager_secret.password[0].id, null)
}

output "replica_host" {
  description = "Private address of this server where it is a replica, else null."
  value       = local.primary ? null : google_sql_database_instance.this.private_ip_address
}

output "instance_name" {
  description = "What replica_of of another region takes."
  value       = google_sql_database_instance.this.name
}
