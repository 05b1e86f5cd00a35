# moto forgets which objects a rule takes, and that it copies deletions.
resource "aws_s3_bucket_replication_configuration" "this" {
  lifecycle {
    ignore_changes = [rule[0].delete_marker_replication, rule[0].source_selection_criteria]
  }
}
