mock_provider "aws" {
  source = "../mocks"
}

variables {
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "test", cost-center = "research" }

  cluster_name       = "flightpath-us-east"
  notify_emails      = ["ml-platform@example.com"]
  budget_usd_monthly = 5000
}

run "logs_metrics_and_alarms_are_encrypted_and_money_is_watched" {
  command = apply

  assert {
    condition     = aws_cloudwatch_log_group.containers.retention_in_days == 365 && aws_kms_key.this.enable_key_rotation
    error_message = "a year, under a key that rotates"
  }
  assert {
    condition     = aws_budgets_budget.this.limit_amount == "5000.0" && length(aws_budgets_budget.this.notification) == 3
    error_message = "told at 80 %, 100 % and when 100 % is foreseen"
  }
  assert {
    condition     = contains(flatten([for filter in aws_budgets_budget.this.cost_filter : filter.values]), "user:cost-center$research") && contains(flatten([for filter in aws_budgets_budget.this.cost_filter : filter.values]), "us-east-1")
    error_message = "this region's part of the cost center"
  }
  assert {
    condition     = jsondecode(aws_ce_anomaly_monitor.this[0].monitor_specification).Tags.Values == ["test"]
    error_message = "anomalies of this environment"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.nodes.treat_missing_data == "breaching"
    error_message = "a cluster that says nothing is an alarm"
  }
}

run "anomalies_can_be_left_out" {
  command = plan

  variables {
    anomaly_detection = false
  }
  assert {
    condition     = length(aws_ce_anomaly_monitor.this) == 0 && length(aws_ce_anomaly_subscription.this) == 0
    error_message = "accounts without rights on Cost Explorer"
  }
}

run "bad_values_are_refused" {
  command = plan

  variables {
    name               = "Flightpath_US"
    tags               = { team = "ml-platform" }
    notify_emails      = ["nobody"]
    budget_usd_monthly = 0
    retention_days     = 42
  }
  expect_failures = [var.name, var.tags, var.notify_emails, var.budget_usd_monthly, var.retention_days]
}
