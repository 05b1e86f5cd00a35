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
