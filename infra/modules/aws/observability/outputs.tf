output "workspace_id" {
  description = "Workspace of Amazon Managed Prometheus: where the region's Prometheus may write to."
  value       = aws_prometheus_workspace.this.id
}

output "log_group" {
  description = "Log group of the containers."
  value       = aws_cloudwatch_log_group.containers.name
}

output "alarm_topic" {
  description = "ARN of the topic that alarms are told to."
  value       = aws_sns_topic.alarms.arn
}

output "budget_name" {
  description = "Name of the monthly budget."
  value       = one(aws_budgets_budget.this[*].name)
}
