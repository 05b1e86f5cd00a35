output "bucket" {
  description = "Name of the bucket."
  value       = google_storage_bucket.this["primary"].name
}

output "url" {
  description = "The artifact store's address, as FLIGHTPATH_STORE takes it."
  value       = "gs://${google_storage_bucket.this["primary"].name}"
}

output "kms_key_id" {
  description = "Key of the bucket's objects."
  value       = google_kms_crypto_key.this["primary"].id
}

output "replica_bucket" {
  description = "Name of the replica; null without one."
  value       = try(google_storage_bucket.this["replica"].name, null)
}
