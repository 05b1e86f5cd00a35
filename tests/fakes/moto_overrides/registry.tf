# moto has no replication of registries.
resource "aws_ecr_replication_configuration" "this" {
  count = 0
}
