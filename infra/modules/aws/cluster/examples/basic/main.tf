provider "aws" {
  region = "us-east-1"
}

module "network" {
  source = "../../../network"
  name   = "flightpath-us-east"
  region = "us-east-1"
  tags   = { team = "ml-platform", environment = "trial", cost-center = "research" }
  zones  = ["us-east-1a", "us-east-1b"]
  nat    = "single"
}

module "cluster" {
  source     = "../.."
  name       = "flightpath-us-east"
  region     = "us-east-1"
  tags       = { team = "ml-platform", environment = "trial", cost-center = "research" }
  network_id = module.network.network_id
  subnet_ids = module.network.private_subnet_ids

  node_groups = {
    system = { instance_type = "m7i.xlarge", min = 2, max = 4 }
    spot   = { instance_type = "g5.xlarge", min = 0, max = 4, gpus = 1, spot = true }
  }
}

output "endpoint" {
  description = "URL of the API server."
  value       = module.cluster.endpoint
}
