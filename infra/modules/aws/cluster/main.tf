# The control plane: private, with secrets and logs under a key of its own, and an identity provider for its pods.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  tags      = merge(var.tags, { module = "cluster" })
  partition = data.aws_partition.this.partition
  account   = data.aws_caller_identity.this.account_id
  # The name that EKS itself would make one under, unencrypted.
  log_group = "/aws/eks/${var.name}/cluster"
  # Made by EKS: control plane, nodes, and what may speak to them.
  security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:a key's policy is about this key alone
  #checkov:skip=CKV_AWS_111:a key's policy is about this key alone
  #checkov:skip=CKV_AWS_356:in a key's policy * is the key itself
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }
  }

  # Without it a node whose root volume is encrypted under this key never starts.
  statement {
    sid       = "Nodes"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey", "kms:CreateGrant"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"]
    }
  }
}

resource "aws_kms_key" "this" {
  description             = "Secrets, logs and node volumes of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = local.tags
}

resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
  tags              = local.tags
}

data "aws_iam_policy_document" "cluster_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.cluster_trust.json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_security_group" "admins" {
  name        = "${var.name}-admins"
  description = "Administrators of ${var.name} to its API server"
  vpc_id      = var.network_id
  tags        = merge(local.tags, { Name = "${var.name}-admins" })
}

resource "aws_vpc_security_group_ingress_rule" "admins" {
  for_each          = toset(var.admin_cidrs)
  security_group_id = aws_security_group.admins.id
  description       = "API server"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = local.tags
}

resource "aws_eks_cluster" "this" {
  #checkov:skip=CKV_AWS_39:private unless private_endpoint is false, which wants admin_cidrs
  name                      = var.name
  version                   = var.kubernetes_version
  role_arn                  = aws_iam_role.cluster.arn
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  tags                      = local.tags

  vpc_config {
    subnet_ids              = var.subnet_ids
    security_group_ids      = [aws_security_group.admins.id]
    endpoint_private_access = true
    endpoint_public_access  = !var.private_endpoint
    public_access_cidrs     = var.private_endpoint ? null : var.admin_cidrs
  }

  access_config {
    authentication_mode = "API"
    # Whoever runs Terraform administers nothing by that: admin_role_arns do.
    bootstrap_cluster_creator_admin_permissions = length(var.admin_role_arns) == 0
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.this.arn
    }
  }

  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.this]
}

resource "aws_eks_access_entry" "admins" {
  for_each      = var.admin_role_arns
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.key
  tags          = local.tags
}

resource "aws_eks_access_policy_association" "admins" {
  for_each      = var.admin_role_arns
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.admins[each.key].principal_arn
  policy_arn    = "arn:${local.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}
