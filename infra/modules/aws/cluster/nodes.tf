# Nodes: managed groups on demand and on spot. Labels and taints are those that the operator and its examples use.

locals {
  gpu_taint  = { key = "nvidia.com/gpu", value = "true", effect = "NoSchedule" }
  spot_taint = { key = "spot", value = "true", effect = "NoSchedule" }
  effects    = { NoSchedule = "NO_SCHEDULE", NoExecute = "NO_EXECUTE", PreferNoSchedule = "PREFER_NO_SCHEDULE" }

  # Network cards with EFA by instance type: EC2 documentation, "Elastic Fabric Adapter", network cards.
  efa_cards = {
    "p4d.24xlarge"     = 4
    "p4de.24xlarge"    = 4
    "p5.48xlarge"      = 32
    "p5e.48xlarge"     = 32
    "p5en.48xlarge"    = 16
    "p6-b200.48xlarge" = 8
    "trn1n.32xlarge"   = 16
    "trn2.48xlarge"    = 16
  }

  groups = {
    for name, group in var.node_groups : name => merge(group, {
      taints = concat(group.gpus > 0 ? [local.gpu_taint] : [], group.spot ? [local.spot_taint] : [], group.taints)
      labels = merge(group.labels, {
        "flightpath.dev/node-group"  = name
        "karpenter.sh/capacity-type" = group.spot ? "spot" : "on-demand"
      }, group.gpus > 0 ? { "nvidia.com/gpu.present" = "true" } : {})
      ami       = group.gpus > 0 ? "AL2023_x86_64_NVIDIA" : can(regex("^[a-z]+[0-9]+g[a-z]*\\.", group.instance_type)) ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
      efa_cards = group.rdma ? lookup(local.efa_cards, group.instance_type, 1) : 0
    })
  }
  rdma_groups = { for name, group in local.groups : name => group if group.rdma }
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each   = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly", "AmazonSSMManagedInstanceCore"])
  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.key}"
}

# EFA passes only between members of a group that may say everything to each other.
resource "aws_security_group" "efa" {
  count       = length(local.rdma_groups) > 0 ? 1 : 0
  name        = "${var.name}-efa"
  description = "EFA between the GPU nodes of ${var.name}"
  vpc_id      = var.network_id
  tags        = merge(local.tags, { Name = "${var.name}-efa" })
}

resource "aws_vpc_security_group_ingress_rule" "efa" {
  count                        = length(aws_security_group.efa)
  security_group_id            = aws_security_group.efa[0].id
  referenced_security_group_id = aws_security_group.efa[0].id
  description                  = "EFA from its own members"
  ip_protocol                  = "-1"
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "efa" {
  count                        = length(aws_security_group.efa)
  security_group_id            = aws_security_group.efa[0].id
  referenced_security_group_id = aws_security_group.efa[0].id
  description                  = "EFA to its own members"
  ip_protocol                  = "-1"
  tags                         = local.tags
}

resource "aws_placement_group" "this" {
  for_each = local.rdma_groups
  name     = "${var.name}-${each.key}"
  strategy = "cluster"
  tags     = local.tags
}

resource "aws_launch_template" "this" {
  for_each               = local.groups
  name                   = "${var.name}-${each.key}"
  update_default_version = true
  vpc_security_group_ids = each.value.rdma ? null : [local.security_group_id]
  tags                   = local.tags

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = var.root_volume_gb
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = aws_kms_key.this.arn
      delete_on_termination = true
    }
  }

  # One hop: pods cannot reach the node's credentials; they have roles of their own.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  # The first card carries IP and EFA, the others EFA alone.
  dynamic "network_interfaces" {
    for_each = range(each.value.efa_cards)
    content {
      network_card_index    = network_interfaces.value
      device_index          = network_interfaces.value == 0 ? 0 : 1
      interface_type        = network_interfaces.value == 0 ? "efa" : "efa-only"
      delete_on_termination = true
      security_groups       = [local.security_group_id, aws_security_group.efa[0].id]
    }
  }

  dynamic "placement" {
    for_each = [for name, group in aws_placement_group.this : group.name if name == each.key]
    content {
      group_name = placement.value
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-${each.key}", node-group = each.key })
    }
  }
}

resource "aws_eks_node_group" "this" {
  for_each        = local.groups
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  # Fabrics and placement groups end at the zone.
  subnet_ids     = each.value.rdma ? [var.subnet_ids[0]] : var.subnet_ids
  version        = var.kubernetes_version
  ami_type       = each.value.ami
  capacity_type  = each.value.spot ? "SPOT" : "ON_DEMAND"
  instance_types = [each.value.instance_type]
  labels         = each.value.labels
  tags           = merge(local.tags, { node-group = each.key })

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = each.value.min
  }

  update_config {
    max_unavailable_percentage = 33
  }

  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  dynamic "taint" {
    for_each = each.value.taints
    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = local.effects[taint.value.effect]
    }
  }

  # The autoscaler's business.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

resource "aws_eks_addon" "this" {
  for_each                    = var.addons
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  service_account_role_arn    = each.key == "aws-ebs-csi-driver" ? aws_iam_role.workload["ebs-csi"].arn : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "PRESERVE"
  tags                        = local.tags
  depends_on                  = [aws_eks_node_group.this]
}
