# Money: a budget of what bears these tags, told at 80 and 100 %, and what leaves its pattern.

locals {
  notification = { actual_80 = ["ACTUAL", 80], actual_100 = ["ACTUAL", 100], forecast_100 = ["FORECASTED", 100] }
}

resource "aws_budgets_budget" "this" {
  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = format("%.1f", var.budget_usd_monthly)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"
  tags         = local.tags

  # Cost tags must be activated once in the account's billing: a filter on one that is not matches nothing.
  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:cost-center$%s", var.tags["cost-center"])]
  }

  cost_filter {
    name   = "Region"
    values = [var.region]
  }

  dynamic "notification" {
    for_each = local.notification
    content {
      comparison_operator        = "GREATER_THAN"
      notification_type          = notification.value[0]
      threshold                  = notification.value[1]
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = var.notify_emails
      subscriber_sns_topic_arns  = [aws_sns_topic.alarms.arn]
    }
  }
}

resource "aws_ce_anomaly_monitor" "this" {
  count        = var.anomaly_detection ? 1 : 0
  name         = "${var.name}-costs"
  monitor_type = "CUSTOM"
  monitor_specification = jsonencode({
    And            = null
    CostCategories = null
    Dimensions     = null
    Not            = null
    Or             = null
    Tags           = { Key = "environment", MatchOptions = null, Values = [var.tags["environment"]] }
  })
  tags = local.tags
}

resource "aws_ce_anomaly_subscription" "this" {
  count            = var.anomaly_detection ? 1 : 0
  name             = "${var.name}-costs"
  frequency        = "IMMEDIATE"
  monitor_arn_list = [aws_ce_anomaly_monitor.this[0].arn]
  tags             = local.tags

  subscriber {
    type    = "SNS"
    address = aws_sns_topic.alarms.arn
  }

  threshold_expression {
    dimension {
      key           = "ANOMALY_TOTAL_IMPACT_ABSOLUTE"
      match_options = ["GREATER_THAN_OR_EQUAL"]
      values        = [tostring(var.anomaly_usd)]
    }
  }

  depends_on = [aws_sns_topic_policy.alarms]
}
