# moto makes no security group for a cluster: the administrators' stands in for it.
locals {
  security_group_id = aws_security_group.admins.id
}

# moto has no placement groups.
resource "aws_placement_group" "this" {
  for_each = {}
}

# moto has no add-ons.
resource "aws_eks_addon" "this" {
  for_each = {}
}

# What moto forgets, or tells otherwise, of what it was given.
resource "aws_eks_cluster" "this" {
  lifecycle {
    ignore_changes = [access_config]
  }
}

resource "aws_eks_node_group" "this" {
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size, node_repair_config, update_config, remote_access]
  }
}

resource "aws_vpc_security_group_ingress_rule" "efa" {
  lifecycle {
    ignore_changes = [description]
  }
}

resource "aws_vpc_security_group_egress_rule" "efa" {
  lifecycle {
    ignore_changes = [description]
  }
}

# It lists the template's own tags among those of instances.
resource "aws_launch_template" "this" {
  lifecycle {
    ignore_changes = [tag_specifications]
  }
}
