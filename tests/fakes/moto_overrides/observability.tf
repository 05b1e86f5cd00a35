# moto keeps neither subscribers nor tags of budgets, and has no anomaly monitors.
resource "aws_budgets_budget" "this" {
  count = 0
}

resource "aws_ce_anomaly_monitor" "this" {
  count = 0
}

resource "aws_ce_anomaly_subscription" "this" {
  count = 0
}

# moto forgets the key.
resource "aws_prometheus_workspace" "this" {
  lifecycle {
    ignore_changes = [kms_key_arn]
  }
}
