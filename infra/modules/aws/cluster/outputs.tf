output "cluster_name" {
  description = "Name of the EKS cluster."
  value       = aws_eks_cluster.this.name
}

output "endpoint" {
  description = "URL of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "ca_certificate" {
  description = "The API server's certificate authority, base64 of PEM."
  value       = aws_eks_cluster.this.certificate_authority[0].data
}

output "oidc_issuer" {
  description = "URL that signs the tokens of service accounts."
  value       = aws_eks_cluster.this.identity[0].oidc[0].issuer
}

output "workload_identities" {
  description = "Role of each service account, for its annotation eks.amazonaws.com/role-arn."
  value       = { for name, role in aws_iam_role.workload : name => role.arn }
}

output "node_group_names" {
  description = "Names of the node groups."
  value       = [for group in aws_eks_node_group.this : group.node_group_name]
}

output "security_group_id" {
  description = "The group of control plane and nodes: what databases let in."
  value       = local.security_group_id
}

output "kms_key_id" {
  description = "Key of secrets, logs and node volumes."
  value       = aws_kms_key.this.arn
}
