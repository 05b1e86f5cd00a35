# Identities of pods: a service account is trusted by exactly one role, and no pod uses the node's.

locals {
  issuer     = replace(aws_eks_cluster.this.identity[0].oidc[0].issuer, "https://", "")
  with_csi   = contains(var.addons, "aws-ebs-csi-driver") ? { ebs-csi = { namespace = "kube-system", name = "ebs-csi-controller-sa", bucket_access = "none" } } : {}
  workloads  = merge(var.service_accounts, local.with_csi)
  bucket_use = { for name, account in var.service_accounts : name => account.bucket_access if account.bucket_access != "none" }
}

resource "aws_iam_openid_connect_provider" "this" {
  url            = aws_eks_cluster.this.identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
  tags           = local.tags
}

data "aws_iam_policy_document" "workload_trust" {
  for_each = local.workloads
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [aws_iam_openid_connect_provider.this.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = ["system:serviceaccount:${each.value.namespace}:${each.value.name}"]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "workload" {
  for_each           = local.workloads
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.workload_trust[each.key].json
  tags               = local.tags
}

data "aws_iam_policy_document" "buckets" {
  for_each = local.bucket_use

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = var.bucket_arns
  }

  statement {
    sid       = "Objects"
    actions   = each.value == "write" ? ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"] : ["s3:GetObject", "s3:GetObjectVersion"]
    resources = [for arn in var.bucket_arns : "${arn}/*"]
  }

  statement {
    sid       = "Keys"
    actions   = each.value == "write" ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = var.bucket_key_arns
  }
}

resource "aws_iam_role_policy" "buckets" {
  for_each = local.bucket_use
  name     = "buckets"
  role     = aws_iam_role.workload[each.key].id
  policy   = data.aws_iam_policy_document.buckets[each.key].json

  lifecycle {
    precondition {
      condition     = length(var.bucket_arns) > 0 && length(var.bucket_key_arns) > 0
      error_message = "service account ${each.key} has bucket_access ${each.value}: bucket_arns and bucket_key_arns must be given."
    }
  }
}

resource "aws_iam_role_policy_attachment" "ebs_csi" {
  count      = length(local.with_csi)
  role       = aws_iam_role.workload["ebs-csi"].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}
