provider "aws" {
  region = "us-east-1"
}

module "network" {
  source = "../.."
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "trial", cost-center = "research" }
  zones  = ["us-east-1a", "us-east-1b"]
  nat    = "single"
}

output "network_id" {
  description = "The VPC."
  value       = module.network.network_id
}
