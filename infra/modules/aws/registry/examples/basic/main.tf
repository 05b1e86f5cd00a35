provider "aws" {
  region = "us-east-1"
}

module "registry" {
  source          = "../.."
  name            = "flightpath-us-east"
  region          = "us-east-1"
  tags            = { team = "ml-platform", environment = "trial", cost-center = "research" }
  repositories    = ["flightpath/gateway", "flightpath/agent"]
  replica_regions = ["eu-west-1"]
}

output "repository_urls" {
  description = "Where images are pushed to and pulled from."
  value       = module.registry.repository_urls
}
