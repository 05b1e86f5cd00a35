provider "aws" {
  region = "us-east-1"
}

module "observability" {
  source             = "../.."
  name               = "flightpath-us-east"
  region             = "us-east-1"
  tags               = { team = "ml-platform", environment = "trial", cost-center = "research" }
  cluster_name       = "flightpath-us-east"
  notify_emails      = ["ml-platform@example.com"]
  budget_usd_monthly = 5000
}

output "alarm_topic" {
  description = "Where alarms are told."
  value       = module.observability.alarm_topic
}
