# moto tells the tags of the side that asked on the other side too.
resource "aws_vpc_peering_connection_accepter" "this" {
  lifecycle {
    ignore_changes = [tags, tags_all]
  }
}
