output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "ARN of the bucket: what other regions replicate to and roles are granted."
  value       = aws_s3_bucket.this.arn
}

output "url" {
  description = "Address of the artifact store."
  value       = "s3://${aws_s3_bucket.this.id}"
}

output "kms_key_id" {
  description = "ARN of the key of the objects."
  value       = aws_kms_key.this.arn
}

output "replica_bucket" {
  description = "Name of the bucket that gets copies; null without replication."
  value       = var.replica_bucket_arn == null ? null : element(split(":::", var.replica_bucket_arn), 1)
}
