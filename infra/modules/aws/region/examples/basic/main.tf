provider "aws" {
  region = "us-east-1"
}

module "region" {
  source             = "../.."
  name               = "flightpath-us-east"
  region             = "us-east-1"
  tags               = { team = "ml-platform", environment = "trial", cost-center = "research" }
  cidr               = "10.0.0.0/16"
  zones              = ["us-east-1a", "us-east-1b"]
  node_groups        = { system = { instance_type = "m7i.xlarge", min = 2, max = 4 } }
  notify_emails      = ["ml-platform@example.com"]
  budget_usd_monthly = 5000
}

output "cluster" {
  description = "How the cluster is reached."
  value       = module.region.cluster
}
